"""How many objects of a series the archive has: C-FIND (PS3.4 annex C)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]

from fabrica.serving.node.calling import associated, offers_none
from fabrica.serving.node.peers import Peer

PENDING = (0xFF00, 0xFF01)
SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """count: objects that the archive has of a series, 0 where it knows none, or nothing of queries at all. silent: it
    could not be asked; away: nor can it be asked about any other series now."""

    count: int = 0
    silent: bool = False
    away: bool = False


AWAY = Answer(silent=True, away=True)


def expected(peer: Peer, aet: str, study: str, series: str) -> Answer:
    """Ask for NumberOfSeriesRelatedInstances; of an archive that does not say, for the objects themselves."""
    if not (study and series):
        return Answer()
    with associated(aet, peer, [(StudyRootQueryRetrieveInformationModelFind, None)], SECONDS) as association:
        if not association.is_established:  # one that takes no queries has nothing to wait for
            return Answer() if offers_none(association) else AWAY
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study, series
        query.NumberOfSeriesRelatedInstances = None
        found = _found(association, query)
        if isinstance(found, Answer):
            return found
        same = [each for each in found if each.get("SeriesInstanceUID") == series]
        if not same:
            return Answer()
        with suppress(AttributeError, TypeError, ValueError):  # no number, or none that is one
            return Answer(int(same[0].NumberOfSeriesRelatedInstances))
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study, series, ""
        found = _found(association, query)
        return found if isinstance(found, Answer) else Answer(len(found))


def _found(association: Association, query: Dataset) -> list[Dataset] | Answer:
    """The matches; of an archive that does not answer to the end, a silent answer."""
    matches = []
    try:
        answers = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        for status, match in answers:
            code = status.get("Status")  # None: nothing came in time, or the association was ended
            if code in PENDING and match is not None:
                matches.append(match)
            elif code == 0:
                return matches
            else:
                return AWAY if code is None else Answer(silent=True)
    except RuntimeError:  # the association has ended meanwhile
        return AWAY
    return AWAY
