import json
import pickle
from pathlib import Path

import pytest

from zoo.orca.learn.charts import panels
from zoo.orca.learn.history import History


def epochs(rates: tuple[float, ...] = (0.1, 0.1, 0.1)) -> History:
    return History(
        {
            "epoch": 4 + k,
            "batch_count": 10,
            "num_samples": 100,
            "train_loss": 1 / (k + 1),
            "last_train_loss": 0.5,
            "lr": rate,
            "val_loss": 2 / (k + 1),
            "val_AUC": 0.5 + k / 10,
            "val_ConfusionMatrix": [[1, 2], [3, 4]],
        }
        for k, rate in enumerate(rates)
    )


def test_it_is_the_list_that_it_always_was() -> None:
    history = epochs()
    assert isinstance(history, list)
    assert history == [dict(epoch) for epoch in history]
    assert json.loads(json.dumps(history)) == history
    assert pickle.loads(pickle.dumps(history)).frame().equals(history.frame())


def test_a_table_has_a_row_for_each_epoch_and_only_numbers() -> None:
    table = epochs().frame()
    assert list(table.index) == [4, 5, 6]
    assert table.loc[5, "train_loss"] == 0.5
    assert "val_ConfusionMatrix" not in table
    assert History().frame().empty


def test_numbers_are_drawn_with_those_of_validation() -> None:
    assert panels(epochs().frame()) == {"loss": ["train_loss", "val_loss"], "AUC": ["val_AUC"]}
    assert "lr" in panels(epochs((0.1, 0.05, 0.01)).frame())


def test_a_picture_is_made_and_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = epochs((0.1, 0.05, 0.01)).plot(tmp_path / "curves.png")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "AUC", "lr"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not History().plot().axes


def test_a_notebook_shows_the_table() -> None:
    html = epochs()._repr_html_()
    assert html.count("<tr") == 2 + 3
    assert "0.333333" in html
