"""Every Python block of the README and the docs runs, and every link to a file leads somewhere."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class AnyLightningModule(BoringModel):
    """A module as people write them: a bare optimizer."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


@every_page
@pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary")
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"any_lightning_module": AnyLightningModule(), "any_loader": DataLoader(torch.randn(64, 32), batch_size=4)}
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert blocks or page.name not in ("README.md", "schedules.md", "gradients.md", "strategies.md")
    for block in blocks:
        exec(compile(block, page.name, "exec"), given)


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
