"""A clone, and a cloud of stand-ins."""

import shutil

import pytest
from small_cloud import ROOT, Cloud, git


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A small clone: the launchers, and an installation that takes no time."""
    clone = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "launch", clone / "launch")
    for file, text in {
        "tools/setup.sh": 'mkdir -p .venv/bin\ncp "$STAND_IN/bin/trainer" .venv/bin/python\n',
        "configs/hrq.py": "the committed config",
        "requirements.lock": "tqdm==1 \\\n    --hash=sha256:aa\nuv==2 \\\n    --hash=sha256:bb\nwheel==3\n",
        "tests/libtpu.lock": "libtpu==1",
    }.items():
        (clone / file).parent.mkdir(exist_ok=True)
        (clone / file).write_text(text)
    git(clone, "init", "--quiet")
    git(clone, "add", ".")
    git(clone, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message=first")
    return clone


@pytest.fixture
def cloud(tmp_path, clone):
    return Cloud(tmp_path, clone)
