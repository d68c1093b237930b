"""The conftest.py of the executed chapters: kernels talk over files, not over ports.

Two kernels that start at once can pick the same free port. A socket in a folder of its
own cannot collide.
"""

import os
import tempfile

from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient


class FileKernelManager(AsyncKernelManager):
    """A kernel manager whose sockets lie in a new temporary folder."""

    def __init__(self, **options):
        self.folder = tempfile.TemporaryDirectory(prefix="k")
        address = os.path.join(self.folder.name, "s")
        super().__init__(transport="ipc", ip=address, **options)


NotebookClient.kernel_manager_class.default_value = FileKernelManager
NotebookClient._kernel_manager_class_default = lambda client: FileKernelManager
