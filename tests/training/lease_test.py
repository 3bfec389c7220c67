"""Who writes a directory in a store: one run at a time, the next one once it is known that the first is dead."""

import threading

import pytest
from small_store import Shaky

from vqdna_jax.errors import InputError
from vqdna_jax.runtime.remote.store import Store
from vqdna_jax.training import lease
from vqdna_jax.training.lease import Lease, held


@pytest.fixture(autouse=True)
def there(monkeypatch) -> Store:
    monkeypatch.setattr(lease, "_SETTLE_S", 0.0)
    Shaky.anew()
    return Store("shaky://bucket/run")


def dead(there: Store) -> Lease:
    """Of a run that was killed: nobody renews it."""
    left = Lease(there)
    left.take("")
    return left


def test_a_run_that_lives_keeps_others_out_and_gives_it_back(there, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 4.0)
    with held(there, tmp_path / "here"):
        with (
            pytest.raises(InputError, match=r"^--workdir=shaky://bucket/run: another run is using it \(process "),
            held(there, tmp_path / "elsewhere"),
        ):
            pass
        assert there.read(lease.NAME)
    assert there.sizes() == {}
    with held(there, tmp_path / "elsewhere"):
        pass


def test_another_machine_takes_it_over_once_it_was_silent(there, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lease, "LEASE_S", 0.3)
    left = dead(there)
    with held(there, tmp_path / "elsewhere") as taken:
        taken.check()
        with pytest.raises(InputError, match="another run took it over .process "):
            left.check()
        with pytest.raises(InputError, match="another run took it over"):
            left.renew()
        left.release()
        taken.check()
    assert "did not give it back; 0 s will show whether it lives" in capsys.readouterr().err
    with pytest.raises(InputError, match="another run took it over .and has ended"):
        left.check()


def test_the_same_machine_need_not_wait(there, tmp_path):
    """It holds the lock of the directory in which the run was that had the lease: that one is dead."""
    (tmp_path / "here").write_text(dead(there).id)
    with held(there, tmp_path / "here") as taken:  # a lease of a minute
        taken.check()


@pytest.mark.parametrize("content", [b"", b"no JSON", b"[1]"])
def test_what_no_run_wrote_is_taken_over_too(there, tmp_path, monkeypatch, content):
    monkeypatch.setattr(lease, "LEASE_S", 0.3)
    there.write(lease.NAME, content)
    with held(there, tmp_path / "here") as taken:
        taken.check()


def test_of_many_that_find_a_dead_one_at_the_same_time_one_has_it(there, monkeypatch):
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    monkeypatch.setattr(lease, "_SETTLE_S", 0.5)
    dead(there)
    all_of_them, refused = [Lease(there) for _ in range(4)], []

    def take(one: Lease) -> None:
        try:
            one.take("")
        except InputError:
            refused.append(one)

    threads = [threading.Thread(target=take, args=(one,)) for one in all_of_them]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (holder,) = set(all_of_them) - set(refused)
    holder.check()


def test_a_lease_that_cannot_be_renewed_is_said_once_and_renewed_later(there, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vqdna_jax.runtime.remote.store.PAUSE_S", 0.0)
    renewed = threading.Event()

    def fails_twice(calls=[]) -> None:  # noqa: B006  # it counts them
        calls.append(1)
        if len(calls) < 3:
            raise OSError("away")
        renewed.set()

    with lease.every(0.01, fails_twice):
        assert renewed.wait(10)
    assert capsys.readouterr().err == "warning: away\n"
