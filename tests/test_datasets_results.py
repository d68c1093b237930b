"""Tables of results are read as they were written, and completed cell by cell."""

import numpy as np
import pytest

from balance.datasets.results import FOLDER, Writer, load_results


def writer(folder):
    return Writer("sample", ["size", "seed"], "make experiments", ["numpy"], folder)


def test_what_is_written_is_read(tmp_path):
    table = writer(tmp_path)
    table.add([{"size": 128, "seed": 1, "value": 0.5, "name": "b"}])
    table.add([{"size": 32, "seed": 1, "value": 1e-9, "name": "a"}])
    results = load_results("sample", tmp_path)
    assert results["size"].tolist() == [32, 128]
    assert results["value"].tolist() == [1e-9, 0.5]
    assert results["size"].dtype == np.int64
    assert results["name"].tolist() == ["a", "b"]
    assert results.where(size=128)["name"].tolist() == ["b"]
    assert len(results.where(size=128, name="a")) == 0
    assert results.about["command"] == "make experiments"
    assert f"numpy {np.__version__}" in results.about["versions"]


def test_a_stopped_table_is_completed(tmp_path):
    writer(tmp_path).add([{"size": 32, "seed": 0, "value": 1.0}, {"size": 32, "seed": 0, "value": 2.0}])
    table = writer(tmp_path)
    assert {"size": 32, "seed": 0} in table
    assert {"size": 32, "seed": 1} not in table
    table.add([{"size": 32, "seed": 1, "value": 3.0}])
    assert load_results("sample", tmp_path)["value"].tolist() == [1, 2, 3]


def test_where_without_a_column_is_every_row():
    results = load_results("contrastive_marginals")
    everything = results.where()
    assert len(everything) == len(results)
    assert everything["encoder"].tolist() == results["encoder"].tolist()


def test_where_names_the_known_values():
    results = load_results("clustering_sizes")
    with pytest.raises(ValueError, match="no row has target = 'unifrm': choose one of 'tempered', 'true', 'uniform'"):
        results.where(target="unifrm")
    with pytest.raises(ValueError, match=r"seed = 99: choose one of 0, 1, 2, 3, 4, 5, 6, 7$"):
        results.where(seed=99)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.stem)
def test_shipped_tables_say_how_they_were_made(path):
    results = load_results(path.stem)
    assert results.about.keys() == {"command", "date", "versions"}
    assert all(np.isfinite(column).all() for column in results.columns.values() if column.dtype.kind == "f")
