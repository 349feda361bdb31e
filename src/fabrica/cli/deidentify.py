"""`fabrica deidentify`: identity taken out of DICOM, and looked for."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fabrica.cli.bars import named_bars
from fabrica.cli.options import Json, note, one_line, print_json
from fabrica.errors import FabricaError, UsageError, unknown

if TYPE_CHECKING:
    from fabrica.io.dicom.deidentification import Account

MOST_NAMED = 20  # files that are named one by one


def deidentify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="DICOM file, or folder of them in any layout.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the new files and audit.csv; nothing in it is overwritten."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="File of at least 16 secret bytes, not readable by everybody: the same key gives the same UIDs, "
            "pseudonyms and shifts of dates."
        ),
    ] = None,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep, may be repeated: uids, dates (as they are), shifted-dates (by days that the key gives each "
            "patient), patient (age, sex, size, weight ...), device, institution, private (what is known to be safe)."
        ),
    ] = None,
    clean: Annotated[
        list[str] | None,
        typer.Option(
            help="Clean rather than remove, may be repeated: descriptors (known words stay), structured-content "
            "(reports without their texts), graphics (drawings without their texts)."
        ),
    ] = None,
    blank_outside_regions: Annotated[
        bool,
        typer.Option(
            "--blank-outside-regions",
            help="Make ultrasound black outside the regions that its header names; such files are decoded.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing: list what identity IN still holds, and exit with 1 if any."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Take identity out of DICOM by PS3.15 Annex E (Basic Profile and its options), or look for it (--check)."""
    if check:
        _check(source, as_json, out is not None or bool(retain or clean or blank_outside_regions))
        return
    if out is None or key_file is None:
        missing = "-o" if out is None else "--key-file"
        raise UsageError(f"{missing} is missing; expected fabrica deidentify IN -o OUT --key-file KEY, or IN --check")
    _check_names(retain or [], clean or [])
    with named_bars() as progress:
        from fabrica.io.dicom.deidentification import deidentify as deidentify_folder
        from fabrica.io.dicom.deidentification import read_key

        account = deidentify_folder(
            source,
            out,
            read_key(key_file),
            options=[*(retain or []), *(clean or [])],
            blank_outside_regions=blank_outside_regions,
            progress=lambda done, total: progress("de-identifying", done, total),
        )
    _tell(account, source, out, as_json)


def _check_names(retain: list[str], clean: list[str]) -> None:
    """Raise UsageError for what is no option, or one of the other kind."""
    from fabrica.io.dicom.deidentification.profile import CLEANABLE, RETAINABLE

    for option, given, known, others in (
        ("--retain", retain, RETAINABLE, CLEANABLE),
        ("--clean", clean, CLEANABLE, RETAINABLE),
    ):
        for name in given:
            if name in others:
                raise UsageError(f"{option} {name}: that is what the other takes, --retain or --clean")
            if name not in known:
                raise unknown(option, name, known)


def _tell(account: Account, source: Path, out: Path, as_json: bool) -> None:
    if not account.written + account.again and not as_json:
        what = f"{len(account.left_out)} left out" if account.left_out else f"{len(account.others)} other files"
        _list_left_out(account)
        raise FabricaError(f"{source}: no DICOM file was written ({what}); expected DICOM objects")
    if as_json:
        print_json(
            {
                "written": account.written,
                "already_there": account.again,
                "patients": len(account.patients),
                "left_out": {str(path): reason for path, reason in account.left_out},
                "not_dicom": [str(path) for path in account.others],
                "may_show_identity": account.risks,
                "montages": account.montages,
                "audit": str(account.audit),
            }
        )
        return
    _list_left_out(account)
    if account.others:
        shown = ", ".join(str(path) for path in account.others[:3])
        note(
            f"{len(account.others)} files are no DICOM and were not copied: {shown}"
            + ", ..." * (len(account.others) > 3)
        )
    if account.montages:
        note(
            f"{account.montages} mosaics or montages lost the private elements that place their slices; "
            "--retain private keeps those that are known to be safe"
        )
    for reason, count in Counter(reason for reasons in account.risks.values() for reason in reasons).most_common():
        note(f"{count} files may show identity in their pixels ({reason}); look at them: {account.audit} names them")
    again = f", {account.again} were there already" if account.again else ""
    print(
        f"{out}: {account.written} objects of {len(account.patients)} patients{again}; what was done: {account.audit}"
    )


def _list_left_out(account: Account) -> None:
    for path, reason in account.left_out[:MOST_NAMED]:
        print(one_line(f"left out {path}: {reason}"), file=sys.stderr)
    if (more := len(account.left_out) - MOST_NAMED) > 0:
        print(f"left out {more} more; --json lists all of them", file=sys.stderr)


def _check(source: Path, as_json: bool, more: bool) -> None:
    if more:
        raise UsageError("--check writes nothing and takes no other option than --json")
    with named_bars() as progress:
        from fabrica.io.dicom.deidentification import check as check_folder

        found = list(check_folder(source, progress=lambda done, total: progress("looking", done, total)))
    files = len({finding.file for finding in found})
    if as_json:
        print_json([{**vars(finding), "file": str(finding.file)} for finding in found])
    else:
        counts = Counter((f.tag, f.keyword, f.problem) for f in found)
        for (tag, keyword, problem), count in sorted(counts.items()):
            where = " ".join(filter(None, (tag, keyword)))
            print(one_line(f"{count:6} x {where + ': ' if where else ''}{problem}"))
    if found:
        raise FabricaError(f"{source}: {files} files may still say who they are of; de-identify them, or look at them")
    if not as_json:
        print(f"{source}: nothing found that the profile would change")
