"""The formats by name, and how a file's format is recognised: its content and name must agree."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manyheads.data.readers.arrow import is_saved_dataset, read_arrow
from manyheads.data.readers.brat import is_brat, read_brat
from manyheads.data.readers.clinc import is_clinc, read_clinc
from manyheads.data.readers.clu import is_clu, read_clu
from manyheads.data.readers.conll import looks_like_columns, read_conll
from manyheads.data.readers.conllu import is_conllu, read_conllu
from manyheads.data.readers.delimited import read_csv, read_semicolons, read_tsv
from manyheads.data.readers.dialogflow import USERSAYS, is_dialogflow, read_dialogflow
from manyheads.data.readers.docbin import read_docbin
from manyheads.data.readers.doccano import is_doccano, read_doccano
from manyheads.data.readers.excel import read_excel
from manyheads.data.readers.fasttext import is_fasttext, read_fasttext
from manyheads.data.readers.head import HEAD_BYTES, Head
from manyheads.data.readers.hub import read_dataset
from manyheads.data.readers.hwu import is_hwu, read_hwu
from manyheads.data.readers.indicators import is_indicators, read_indicators
from manyheads.data.readers.json_lines import read_json_lines
from manyheads.data.readers.json_stream import read_json_list
from manyheads.data.readers.kaggle_ner import is_kaggle_ner, read_kaggle_ner
from manyheads.data.readers.label_studio import (
    is_label_studio,
    is_label_studio_table,
    read_label_studio,
    read_label_studio_table,
)
from manyheads.data.readers.luis import is_luis, read_luis
from manyheads.data.readers.massive import is_massive, read_massive
from manyheads.data.readers.other_tools import refuse_other_tools
from manyheads.data.readers.parquet import read_parquet
from manyheads.data.readers.plain_text import read_plain_text
from manyheads.data.readers.prodigy import is_prodigy, read_prodigy
from manyheads.data.readers.rasa_json import is_rasa_json, read_rasa_json
from manyheads.data.readers.rasa_markdown import is_rasa_markdown, read_rasa_markdown
from manyheads.data.readers.rasa_yaml import is_rasa_yaml, read_rasa_yaml
from manyheads.data.readers.row import Layout, Row, Source
from manyheads.data.readers.seq_folder import SEQ_FILES, read_seq_folder
from manyheads.data.readers.snips import is_snips, read_snips
from manyheads.data.readers.spacy_json import is_spacy, read_spacy
from manyheads.data.readers.table import TEXT_COLUMNS
from manyheads.data.readers.tagged_lines import is_tagged_lines, read_tagged_lines
from manyheads.data.readers.text_lines import UTF8_BOM, convert, opened, recode
from manyheads.data.readers.trec import is_trec, read_trec
from manyheads.errors import DataError, at, listing, nearest, option

_JSON = (".json", ".jsonl", ".ndjson")
_PARQUET, _PARQUET_MAGIC = (".parquet", ".pq"), b"PAR1"
_NO_DATA = re.compile(r"(?i)\.|(readme|licen[cs]e|copying|notice|changelog|dataset_infos?)\b")
"""Beginnings of the names of files that a folder has beside its data."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its description, the endings of its files, and its reader."""

    description: str
    read: Callable[[Source], Iterator[Row]]
    endings: tuple[str, ...] = ()
    """Endings of files that have this format whatever their content, unless another matches."""
    matches: Callable[[Head], bool] | None = None
    """Whether the beginning of a file is unmistakably of this format. A file is read as the first
    format that matches, if the file's ending is one of `endings` or `may_end`."""
    may_end: tuple[str, ...] = ()
    is_folder: Callable[[Path], bool] | None = None
    """Whether a folder is of this format."""
    has_columns: bool = False
    """Whether the reader itself renames the columns as the layout states."""


def _separated_by_semicolons(head: Head) -> bool:
    header = head.lines[0] if head.lines else ""
    wanted = {*TEXT_COLUMNS, *map(str.casefold, head.layout.names)}
    by_semicolon, by_comma = ({c.strip(' "').casefold() for c in header.split(s)} for s in ";,")
    return bool(wanted & by_semicolon) and not wanted & by_comma


FORMATS: dict[str, Format] = {
    "label-studio": Format(
        "Label Studio's JSON", read_label_studio, (), is_label_studio, _JSON
    ),
    "label-studio-table": Format(
        "Label Studio's CSV or TSV", read_label_studio_table, (), is_label_studio_table,
        (".csv", ".tsv"), has_columns=True,
    ),
    "prodigy": Format("Prodigy's JSON lines", read_prodigy, (), is_prodigy, _JSON),
    "massive": Format("MASSIVE", read_massive, (), is_massive, _JSON),
    "spacy": Format("spaCy's training data as JSON", read_spacy, (), is_spacy, _JSON),
    "doccano": Format("doccano's JSON lines", read_doccano, (), is_doccano, _JSON),
    "dialogflow": Format(
        "Dialogflow's sentences of an intent", read_dialogflow, (), is_dialogflow, (".json",),
        lambda folder: next(folder.glob(f"*{USERSAYS}*.json"), None) is not None,
    ),
    "rasa-json": Format("Rasa's JSON", read_rasa_json, (), is_rasa_json, (".json",)),
    "luis": Format("LUIS", read_luis, (), is_luis, (".json",)),
    "clu": Format("Azure's CLU", read_clu, (), is_clu, (".json",)),
    "clinc": Format("CLINC150", read_clinc, (), is_clinc, (".json",)),
    "snips": Format("Snips's JSON", read_snips, (), is_snips, (".json",)),
    "rasa": Format("Rasa's nlu.yml", read_rasa_yaml, (), is_rasa_yaml, (".yml", ".yaml")),
    "rasa-markdown": Format("Rasa's Markdown", read_rasa_markdown, (), is_rasa_markdown, (".md",)),
    "kaggle-ner": Format(
        "Kaggle's NER CSV", read_kaggle_ner, (), is_kaggle_ner, (".csv",), has_columns=True
    ),
    "hwu": Format("HWU64", read_hwu, (), is_hwu, (".csv",)),
    "conllu": Format(
        "CoNLL-U", read_conllu, (".conllu",), is_conllu, (".conll", ".txt", ".tsv")
    ),
    "fasttext": Format(
        "fastText's lines", read_fasttext, (), is_fasttext,
        (".txt", ".ft", ".train", ".valid", ".test"),
    ),
    "tagged-lines": Format(
        "a sentence a line of word|TAG", read_tagged_lines, (), is_tagged_lines,
        (".iob", ".iob2", ".bio", ".bio2", ".conll", ".txt"),
    ),
    "trec": Format("TREC's questions", read_trec, (), is_trec, (".label", ".txt")),
    "json": Format("a JSON list", read_json_list, (".json",)),
    "jsonl": Format("JSON lines", read_json_lines, (".jsonl", ".ndjson", ".json")),
    "indicators": Format(
        "CSV or TSV with a column of 0 and 1 for each label", read_indicators, (), is_indicators,
        (".csv", ".tsv"), has_columns=True,
    ),
    "semicolons": Format(
        "CSV with semicolons", read_semicolons, (), _separated_by_semicolons, (".csv",),
        has_columns=True,
    ),
    "csv": Format("CSV with a header", read_csv, (".csv",), has_columns=True),
    "tsv": Format("TSV with a header", read_tsv, (".tsv",), has_columns=True),
    "conll": Format(
        "CoNLL columns", read_conll,
        (".conll", ".annotated", ".bio", ".bio2", ".iob", ".iob2", ".iobes", ".bilou"),
        lambda head: looks_like_columns(head.lines), (".txt", ".tsv"), has_columns=True,
    ),
    "excel": Format("Excel", read_excel, (".xlsx",), has_columns=True),
    "parquet": Format("Parquet", read_parquet, _PARQUET),
    "arrow": Format(
        "Arrow, or a folder of save_to_disk", read_arrow, (".arrow",), is_folder=is_saved_dataset
    ),
    "docbin": Format("spaCy's .spacy", read_docbin, (".spacy",)),
    "seq": Format(
        "a folder of seq.in, seq.out and label", read_seq_folder,
        is_folder=lambda folder: any((folder / name).is_file() for name in SEQ_FILES),
    ),
    "brat": Format("a folder of brat", read_brat, is_folder=is_brat),
    "datasets": Format("datasets:NAME[:CONFIG][@SPLIT]", read_dataset),
    "text": Format("plain text, a sentence a line, where asked for", read_plain_text),
}  # fmt: skip

_GENERAL = ("json", "jsonl", "csv", "tsv", "conll", "parquet", "excel", "seq", "datasets")
_KNOWN = ", ".join(
    f"{FORMATS[name].description} ({' '.join(endings)})"
    if (endings := FORMATS[name].endings)
    else FORMATS[name].description
    for name in _GENERAL
)


def _by_name() -> str:
    return (
        "Give the file the ending of its format, or name it: "
        f"{option('--format NAME', '`layout=Layout(format=NAME)`')}, such as "
        + ", ".join(name for name in FORMATS if name not in _GENERAL)
        + "."
    )


# The first bytes of files that are not text, and what these files are.
_BINARY = {
    b"\x1f\x8b": "gzip-compressed",
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "bzip2-compressed",
    b"\xfd7zXZ\x00": "xz-compressed",
    b"\x28\xb5\x2f\xfd": "zstd-compressed",
}
# UTF-32's little-endian mark begins with UTF-16's, so it comes first.
_OTHER_UNICODE = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def format_named(name: str) -> Format:
    """Return a format by its name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in FORMATS:
        raise DataError(
            f"unknown format {name!r}{nearest(name, FORMATS)}",
            expected=f"one of: {listing(FORMATS)}",
        )
    return FORMATS[name]


def format_of(path: Path, name: str, layout: Layout) -> Format:
    """Return the format of a file or folder by its ending and its first bytes.

    Raises:
        DataError: it is missing, empty or not text; its ending is not known; or its ending and
            its content contradict each other.
    """
    if _is_folder(path, name):
        return _format_of_folder(path, name)
    ending = path.suffix.lower()
    if ending == ".gz":
        ending = path.with_suffix("").suffix.lower()
    with opened(path, name) as file:
        data = file.read(HEAD_BYTES)
    if ending not in (".xlsx", ".spacy", ".arrow"):
        _refuse_other_files(data, path, name)
    is_parquet = data.startswith(_PARQUET_MAGIC)
    if is_parquet != (ending in _PARQUET):
        raise _contradiction(name, ending, "Parquet" if is_parquet else "")
    if is_parquet:
        return FORMATS["parquet"]
    if not data.removeprefix(UTF8_BOM).strip(b" \t\r\n") and len(data) < HEAD_BYTES:
        raise DataError("the file is blank", where=name, expected="records")
    head = Head(data, ending, layout)
    refuse_other_tools(head, name)
    able = [f for f in FORMATS.values() if ending in (*f.endings, *f.may_end)]
    if found := next((f for f in able if f.matches is not None and f.matches(head)), None):
        return found
    if ending in _JSON:
        return _json_format(head.text, ending, name)
    if found := next((f for f in able if ending in f.endings), None):
        return found
    raise _unknown(ending, [f.description for f in able], name)


def _unknown(ending: str, allowed: Sequence[str], name: str) -> DataError:
    """Make the error for a file whose ending and content fit no format.

    Args:
        ending: the file name's.
        allowed: the formats that may have it, by description.
        name: the file.
    """
    if allowed:
        return DataError(
            "lines of text without columns of tokens and tags"
            if ending == ".txt"
            else f"nothing that a {ending} file may hold",
            where=name,
            expected=f"in a {ending}, {' or '.join(allowed)}; the formats are: {_KNOWN}",
            fix=_by_name(),
        )
    return DataError(
        f"the ending {ending!r} says nothing about the format" if ending else "no file ending",
        where=name,
        expected=f"one of: {_KNOWN}",
        fix=_by_name(),
    )


def _format_of_folder(path: Path, name: str) -> Format:
    if (known := _folder_format(path)) is not None:
        return known
    raise DataError(
        "a folder without seq.in and seq.out and label",
        where=name,
        expected="seq.in (tokens), seq.out (tags) and label, line by line; annotations of brat; or "
        "what `save_to_disk` of the datasets library writes",
        fix=_files_of(path) or "Name one file, or a folder that has these.",
    )


def _folder_format(path: Path) -> Format | None:
    return next(
        (f for f in FORMATS.values() if f.is_folder is not None and f.is_folder(path)), None
    )


def _files_of(folder: Path) -> str:
    """Return the advice to name the files of a folder, if any may be of a format."""
    inside = _inside(folder)
    files = [one for one in inside if _may_be_data(one)]
    # The files of a data set on the hub are often in a folder `data`.
    for below in inside:
        if below not in files:
            files += filter(_may_be_data, _inside(below))
    return f"Name its files: {listing(map(str, files))}." if files else ""


def _inside(folder: Path) -> list[Path]:
    """Return what a folder holds but for hidden and descriptive files; nothing of other paths."""
    try:
        return sorted(one for one in folder.iterdir() if not _NO_DATA.match(one.name))
    except OSError:
        return []


def _may_be_data(path: Path) -> bool:
    """Return whether a file has the ending of a format, or a folder is of a format."""
    if path.is_dir():
        return _folder_format(path) is not None
    endings = {e for known in FORMATS.values() for e in (*known.endings, *known.may_end)}
    return Path(path.name.lower().removesuffix(".gz")).suffix in endings


def _is_folder(path: Path, name: str) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(
            "there is no such file or folder", where=name, fix=_neighbour(path)
        ) from None
    # ValueError: a NUL character in the path.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be read ({reason})", where=name, fix="Check the path.") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise DataError(
            "a device, pipe or socket",
            where=name,
            expected="a file or folder",
            fix="Write the records to a file first.",
        )
    return stat.S_ISDIR(mode)


def _neighbour(path: Path) -> str:
    """Return a hint at a file with a similar name in the same folder."""
    try:
        others = [other.name for other in path.parent.iterdir()]
    except OSError:
        return "Check the path."
    return f"Check the path{nearest(path.name, others)}."


def _refuse_other_files(head: bytes, path: Path, name: str) -> None:
    if not head or head == UTF8_BOM:
        raise DataError("the file is empty", where=name, expected="records")
    for magic, what in _BINARY.items():
        if head.startswith(magic):
            raise DataError(f"the file is {what}", where=name, fix="Unpack it first.")
    if b"\n" not in head and head.count(b"\r") > head.count(b"\0") and head.lstrip()[:1] != b"[":
        raise DataError(
            "the lines end at CR alone, as on very old Macintoshes",
            where=name,
            expected="lines that end at LF or CR LF",
            fix=convert(path, name, "tr '\\r' '\\n' <", "lf"),
        )
    for mark, encoding in _OTHER_UNICODE.items():
        if head.startswith(mark):
            raise DataError(
                f"the file begins with a byte-order mark of {encoding}",
                where=name,
                expected="text in UTF-8",
                fix=recode(path, name, encoding),
            )


def _json_format(text: str, ending: str, name: str) -> Format:
    if text[:1] == "[":
        if ending != ".json":
            raise _contradiction(name, ending, "a JSON list")
        return FORMATS["json"]
    if text[:1] != "{" and ending == ".json":
        raise DataError(
            f"broken JSON: the file begins with {text[:1]!r}",
            where=at(name, 1),
            expected="[ of a list of objects, or { of one object a line",
        )
    first, more, _ = text.partition("\n")
    if ending == ".json" and more and not first.rstrip().endswith("}"):
        raise DataError(
            "one JSON object over several lines",
            where=name,
            expected="a list of objects, or one object a line",
            fix="Write the records themselves as a list, or name the format: "
            f"{option('--format NAME', '`layout=Layout(format=NAME)`')}.",
        )
    return FORMATS["jsonl"]


def _contradiction(name: str, ending: str, content: str) -> DataError:
    return DataError(
        f"the ending is {ending!r} but the content is {content or 'something else'}",
        where=name,
        expected=f"content and ending of one format: {_KNOWN}",
        fix="Give the file the ending of its format.",
    )
