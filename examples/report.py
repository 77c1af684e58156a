"""What the demo shows at the end: a table, a sample, a picture of the learning rate."""

from pathlib import Path

from baselines import UNIFORM, bigram, unigram, xz_after, xz_alone
from corpus import Corpus
from matplotlib.figure import Figure
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_llmopt.schedules import Schedule

SHADES = {"warmup": "tab:orange", "stable": "tab:green", "decay": "tab:purple"}


def show_table(console: Console, corpus: Corpus, *, model: float) -> None:
    """Print bits per byte of the held-out text: the model beside everything it should beat."""
    train, heldout = corpus.train, corpus.heldout
    rows = {
        "GPT": model,
        "xz that has seen the training text": xz_after(train, heldout),
        "xz alone": xz_alone(heldout),
        "byte pairs, counted (bigram)": bigram(train, heldout),
        "bytes, counted (unigram)": unigram(train, heldout),
        "uniform": UNIFORM,
    }
    table = Table(title=f"How well {len(heldout):,} held-out bytes are predicted")
    table.add_column("predictor")
    table.add_column("bits per byte (less is better)", justify="right")
    for name, bits in sorted(rows.items(), key=lambda row: row[1]):
        table.add_row(name, f"{bits:.3f}", style="bold green" if name == "GPT" else None)
    console.print(table)


def show_sample(console: Console, sample: bytes) -> None:
    """Print text that the model wrote; what a terminal might obey is shown as a replacement character."""
    written = sample.decode("utf-8", errors="replace")
    harmless = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in written)
    console.print(Panel(Text(harmless), title="A sample from the model"))


def applied_rates(tensorboard: Path) -> dict[int, float]:
    """Learning rate of every logged update, read back from the TensorBoard events."""
    events = EventAccumulator(str(tensorboard), size_guidance={"scalars": 0}).Reload()  # 0: keep all
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("lr/")]
    return {event.step: event.value for tag in tags for event in events.Scalars(tag)}


def draw_schedule(schedule: Schedule, *, peak_rate: float, applied: dict[int, float], to: Path) -> None:
    """Draw the planned learning rate with its phases, and the applied one on top as dots."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    begin = 0
    for phase in schedule.phases:
        end = begin + phase.steps
        shade = SHADES.get(phase.name, "tab:gray")
        axes.axvspan(begin - 0.5, end - 0.5, color=shade, alpha=0.15, lw=0, label=phase.name)
        begin = end
    updates = range(schedule.total_steps)
    axes.plot(updates, [peak_rate * schedule(update) for update in updates], color="black", lw=1.2, label="planned")
    axes.plot(list(applied), list(applied.values()), "o", color="tab:red", ms=3.5, label="applied (from TensorBoard)")
    axes.set(xlabel="update", ylabel="learning rate", title="Learning rate, planned and applied", ylim=(0, None))
    axes.legend(loc="lower center")
    figure.savefig(to, dpi=130)
