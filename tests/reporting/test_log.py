import math

import pytest
from torch.utils.tensorboard import SummaryWriter

from lightning_llmopt.reporting.log import read_log


def write_events(folder, points, tag="train/loss"):
    with SummaryWriter(folder) as writer:
        for step, value in points:
            writer.add_scalar(tag, value, step)


def write_csv(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")


def test_reads_all_points_of_event_files(tmp_path):
    points = [(step, float(step % 7)) for step in range(12_000)]  # TensorBoard's own default keeps 10,000
    write_events(tmp_path / "version_0", points)
    assert read_log(tmp_path).points == {"train/loss": tuple(points)}


def test_reads_metrics_csv_with_its_empty_cells(tmp_path):
    write_csv(tmp_path, "epoch,lr/SGD/group0,step,val_loss", "0,0.1,4,", "0,,9,2.5", "1,0.05,9,", ",nan,14,")
    points = read_log(tmp_path).points
    assert points["val_loss"] == ((9, 2.5),)
    assert points["lr/SGD/group0"][:2] == ((4, 0.1), (9, 0.05))
    assert math.isnan(points["lr/SGD/group0"][2][1])
    assert points.keys() == {"val_loss", "lr/SGD/group0"}


def test_both_loggers_together_are_one_run(tmp_path):
    write_events(tmp_path / "tensorboard", [(0, 1.5)])
    write_csv(tmp_path / "csv", "step,train/loss,train/accuracy", "0,1.5001,0.25")
    log = read_log(tmp_path)
    assert log.points == {"train/loss": ((0, 1.5),), "train/accuracy": ((0, 0.25),)}
    assert len(log.files) == 2


def test_a_run_that_went_on_in_a_second_log_is_joined(tmp_path):
    write_events(tmp_path / "version_0", [(9, 9.0), (19, 8.0), (29, 7.0), (39, 6.0)])
    write_events(tmp_path / "version_1", [(29, 7.5), (49, 5.0)])  # went on from a checkpoint before 29
    assert read_log(tmp_path).points["train/loss"] == ((9, 9.0), (19, 8.0), (29, 7.5), (49, 5.0))


def test_several_runs_are_refused_by_name(tmp_path):
    for name in ("version_0", "version_1"):
        write_csv(tmp_path / name, "step,loss", "0,1.0")
    with pytest.raises(ValueError, match="several that begin at the same update: version_0, version_1. Give one"):
        read_log(tmp_path)


def test_a_folder_without_a_log_is_refused(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"event files \(events.out.tfevents.\*\) or a metrics.csv, found neither in"):
        read_log(tmp_path)


def test_a_log_without_a_number_is_refused(tmp_path):
    write_csv(tmp_path, "epoch,step", "0,4")
    with pytest.raises(ValueError, match="at least one logged number, found none in .*metrics.csv"):
        read_log(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="folder of a run, got .*run', which is no folder"):
        read_log(tmp_path / "run")


def test_a_broken_summary_counts_as_none(tmp_path):
    write_csv(tmp_path, "step,loss", "0,1.0")
    (tmp_path / "run_summary.json").write_text("{")
    assert read_log(tmp_path).summary == {}
    (tmp_path / "run_summary.json").write_text('{"module": "GPT"}')
    assert read_log(tmp_path).summary == {"module": "GPT"}
