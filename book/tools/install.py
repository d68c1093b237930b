"""Build the wheel of `balance` and install it as a reader would: not editable.

Nothing happens while the installed wheel is the one of the present sources.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ROOT / "build" / "wheel"
STAMP = Path(sys.prefix) / ".benefits-of-balance"
SOURCES = ("pyproject.toml", "LICENSE")


def package_files() -> list[Path]:
    """The files of the package, in a fixed order."""
    files = (p for p in (ROOT / "balance").rglob("*") if p.is_file())
    return sorted(p for p in files if "__pycache__" not in p.parts)


def digest(files: list[Path]) -> str:
    """One hash over the names and the contents of the files."""
    sha = hashlib.sha256()
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        sha.update(f"{path.relative_to(ROOT)} {content}\n".encode())
    return sha.hexdigest()


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the sources: nothing is left beside them."""
    source = folder / "source"
    shutil.copytree(ROOT / "balance", source / "balance")
    for name in SOURCES:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *options, "-w", str(folder), str(source)], check=True
    )
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir(parents=True)
    return Path(shutil.copy(next(folder.glob("*.whl")), WHEELS))


def install() -> str:
    """Install the present package if another is there; return the hash of its files."""
    wanted = digest([*package_files(), ROOT / "pyproject.toml"])
    if not STAMP.exists() or STAMP.read_text() != wanted:
        STAMP.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            wheel = build(Path(folder))
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-index", "--force-reinstall"]
        subprocess.run([*pip, "install", *options, str(wheel)], check=True)
        STAMP.write_text(wanted)
    return digest(package_files())


if __name__ == "__main__":
    install()
