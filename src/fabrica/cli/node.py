"""`fabrica node`: models beside an archive."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fabrica.cli.importing import importing
from fabrica.cli.opening import opened
from fabrica.cli.options import Json, one_line, print_json
from fabrica.errors import UsageError

NETWORK, SERIES, LETTERS = "Network", "Series", "Dead letters"
TOKEN = "FABRICA_SEND_TOKEN"


def node(
    models: Annotated[
        list[Path] | None, typer.Argument(metavar="MODEL", help="Folders of models that translate or segment.")
    ] = None,
    store: Annotated[Path, typer.Option(help="Folder for what came in, what is to do, and what was made.")] = Path(
        "node"
    ),
    send_to: Annotated[
        str,
        typer.Option(
            metavar="AET@HOST:PORT",
            help=f"Where results go; https://HOST/PATH: STOW-RS there, with the token in ${TOKEN}, if any.",
        ),
    ] = "",
    rules: Annotated[
        Path | None, typer.Option(help="YAML table: which series is for which model. [default: all for the only model]")
    ] = None,
    otherwise: Annotated[
        str, typer.Option(help="Without --rules, what becomes of what is no image: keep or forward.")
    ] = "keep",
    aet: Annotated[str, typer.Option(help="AE title of the node.", rich_help_panel=NETWORK)] = "FABRICA",
    host: Annotated[
        str, typer.Option(help="Address to listen at; another one needs --allow.", rich_help_panel=NETWORK)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.", rich_help_panel=NETWORK)] = 11112,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AET@HOST",
            help="Who may send: AET, AET@HOST or *@HOST; may be repeated. [default: all on this machine]",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    associations: Annotated[int, typer.Option(min=1, help="Associations at once.", rich_help_panel=NETWORK)] = 20,
    largest: Annotated[int, typer.Option(min=1, help="Megabytes of an object.", rich_help_panel=NETWORK)] = 2048,
    spare: Annotated[
        int, typer.Option(min=0, help="Megabytes of the disk that stay free.", rich_help_panel=NETWORK)
    ] = 1024,
    receivers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that receive. [default: 2, or 1 of one core]", rich_help_panel=NETWORK),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file: TLS with this certificate.", rich_help_panel=NETWORK)
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file: its key.", rich_help_panel=NETWORK)] = None,
    authority: Annotated[
        Path | None,
        typer.Option(help="PEM file: senders need a certificate that it has signed.", rich_help_panel=NETWORK),
    ] = None,
    send_authority: Annotated[
        Path | None,
        typer.Option(
            help="PEM file: TLS to the archive, whose certificate it has signed; with --certificate, if there is one.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    archive: Annotated[
        str,
        typer.Option(
            metavar="AET@HOST:PORT",
            help="Who is asked how many objects a series has; none: nobody. [default: as --send-to]",
            rich_help_panel=SERIES,
        ),
    ] = "",
    quiet: Annotated[
        float,
        typer.Option(min=0, help="Seconds without a new object before a series is complete.", rich_help_panel=SERIES),
    ] = 10.0,
    wait: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for objects that the archive has.", rich_help_panel=SERIES),
    ] = 600.0,
    limit: Annotated[
        float, typer.Option(min=1, help="Seconds that a model may take for a series.", rich_help_panel=SERIES)
    ] = 3600.0,
    tries: Annotated[
        int, typer.Option(min=1, help="How often a result is sent before it is a dead letter.", rich_help_panel=SERIES)
    ] = 300,
    keep_days: Annotated[
        float,
        typer.Option(
            min=0, help="Days after which what was sent is removed from the store; 0: never.", rich_help_panel=SERIES
        ),
    ] = 30.0,
    list_: Annotated[
        bool, typer.Option("--list", help="Show what is waiting and what failed, and end.", rich_help_panel=LETTERS)
    ] = False,
    retry: Annotated[
        str,
        typer.Option(
            metavar="JOB", help="Take a dead letter up again by its number, or `all`, and end.", rich_help_panel=LETTERS
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Stand beside an archive: take series in by DICOM, apply models to them, send the results back."""
    if list_ or retry:
        return _letters(store, list_, retry, as_json)
    if not models:
        raise UsageError("a node needs a model; expected fabrica node MODEL... --send-to AET@HOST:PORT")
    if not send_to:
        raise UsageError("--send-to is needed: AET@HOST:PORT of the archive that takes results, or https://HOST/PATH")
    if bool(certificate) != bool(key):
        raise UsageError("TLS needs both --certificate and --key")
    with importing():
        from fabrica.serving.node import peers
        from fabrica.serving.node import rules as tables
        from fabrica.serving.node.intake import Patience
        from fabrica.serving.node.node import RECEIVERS, Node, Settings
        from fabrica.serving.node.send import destination
        from fabrica.serving.node.terms import Terms

    if otherwise not in (tables.KEEP, tables.FORWARD):
        raise UsageError(f"--otherwise {otherwise}; expected keep or forward")
    if rules and otherwise != tables.KEEP:
        raise UsageError("--otherwise and --rules: say `otherwise:` in the file")
    own = (certificate, key) if certificate and key else ()
    secure = peers.trusting(send_authority, own) if send_authority else None
    to = destination(send_to, os.environ.get(TOKEN, ""), secure)
    asked = (
        None
        if archive == "none"
        else peers.peer(archive, secure)
        if archive
        else to
        if isinstance(to, peers.Peer)
        else None
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if receivers and receivers > associations:
        raise UsageError(f"--receivers {receivers} of --associations {associations}; expected one for each at least")
    processes = receivers or min(RECEIVERS, cores, associations)
    terms = Terms(
        peers.checked_title(aet),
        store / "incoming",
        tuple(peers.allowed(each) for each in allow or []),
        associations,
        largest * 2**20,
        spare * 2**20,
        certificate=(certificate, key) if certificate and key else None,
        authority=authority,
    )
    settings = Settings(
        store, terms.aet, host, port, to, terms, asked, Patience(quiet, wait), processes, tries, limit, keep_days
    )
    made = Node(settings, _say)
    before = signal.signal(signal.SIGTERM, _end)
    table = (lambda names: tables.loaded(rules, names)) if rules else (lambda names: tables.every(names, otherwise))
    try:
        made.start(opened, models, table)
        _say(f"{terms.aet} listens at {host} port {made.port}; models {', '.join(made.models)}; results to {to}")
        made.wait()
    except KeyboardInterrupt:
        _say("stopped; what is left to do is in the store")
    finally:
        made.stop()
        signal.signal(signal.SIGTERM, before)


def _letters(store: Path, list_: bool, retry: str, as_json: bool) -> None:
    """--list and --retry: on the store of a node that runs, or of one that does not."""
    with importing():
        from fabrica.serving.node import entries, letters
        from fabrica.serving.node.intake import shown
        from fabrica.serving.node.queue import Queue
        from fabrica.serving.node.store import Store

    path = store / "queue.db"
    if not path.is_file():
        raise UsageError(f"{store} is no store of a node; give the --store that it was started with")
    with closing(Queue(path)) as queue:
        if retry:
            if retry != "all" and not (retry.isascii() and retry.isdigit() and 0 < int(retry) < 2**63):
                raise UsageError(f"--retry {retry}; expected the number of a dead letter, as --list shows it, or all")
            count = letters.retry(queue, Store(store), 0 if retry == "all" else int(retry))
            if not count:
                raise UsageError(f"no dead letter{'' if retry == 'all' else f' {retry}'} in {store}; see --list")
            print(f"{count} taken up again")
        if not list_:
            return
        dead, partial, refused = queue.jobs(entries.DEAD), queue.series(entries.PARTIAL), letters.refused(queue)
        counts = letters.counts(queue)
        if as_json:
            print_json(
                {
                    "counts": counts,
                    "dead": [asdict(job) for job in dead],
                    "partial": [asdict(series) for series in partial],
                    "refused": [{"file": name, "reason": reason} for name, reason in refused],
                }
            )
            return
        print(", ".join(f"{count} {what}" for what, count in counts.items()) or "nothing came in yet")
        for job in dead:
            print(one_line(f"{job.id}  {job.model or 'forward'}  series {shown(job.series)}: {job.reason}"))
        for series in partial:
            last = datetime.fromtimestamp(series.last).strftime("%Y-%m-%d %H:%M")
            print(one_line(f"-  series {shown(series.uid)}, {last}: {series.note}"))
        for name, reason in refused:
            print(one_line(f"-  object {name}: {reason}"))


def _say(line: str) -> None:
    print(one_line(f"fabrica node: {line}"), file=sys.stderr, flush=True)


def _end(*_: Any) -> None:
    raise KeyboardInterrupt
