"""Where a reply is cut into clauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import growth
from xiaozhi.text.clauses import ClauseSplitter
from xiaozhi.text.units import speakable_chars, units


def split(text: str, *sizes: int, merge: bool = False) -> list[str]:
    """Push `text` in pieces of the given sizes (the last size repeats), then flush."""
    splitter = ClauseSplitter()
    clauses: list[str] = []
    at, number = 0, 0
    while at < len(text):
        size = sizes[min(number, len(sizes) - 1)] if sizes else len(text)
        clauses += splitter.push(text[at : at + size], merge=merge)
        at, number = at + size, number + 1
    return clauses + splitter.flush()


CHINESE = [
    ("你好呀！我是小智，很高兴认识你。今天想聊点什么？", ["你好呀！", "我是小智，很高兴认识你。", "今天想聊点什么？"]),
    ("好的，没问题。", ["好的，", "没问题。"]),
    ("好，那我们走吧。", ["好，那我们走吧。"]),  # one character is too little for a first clause
    ("嗯……让我想想，这个问题有点难。", ["嗯……让我想想，", "这个问题有点难。"]),
    ("哇！！！真的吗？太好了！！", ["哇！！！真的吗？", "太好了！！"]),
    ("他说：“你好。”然后走了。“再见！”她说。", ["他说：", "“你好。”", "然后走了。", "“再见！”", "她说。"]),
    ("“你好！”他说，“请坐。”", ["“你好！”", "他说，“请坐。”"]),
    ("现在是3：45，该出发了。", ["现在是3：45，", "该出发了。"]),
    ("圆周率约等于3.14，对吗？", ["圆周率约等于3.14，", "对吗？"]),
    ("价格是1,000元，很便宜。", ["价格是1,000元，", "很便宜。"]),
    ("1. 苹果\n2. 香蕉，很甜\n3. 梨", ["1. 苹果", "2. 香蕉，很甜", "3. 梨"]),
    ("1、苹果，2、香蕉。3、梨。", ["1、苹果，", "2、香蕉。", "3、梨。"]),
    ("10、十月。", ["10、十月。"]),
    ("（笑，开心）好的，走吧。", ["（笑，开心）好的，", "走吧。"]),
    ("春眠不觉晓；处处闻啼鸟。", ["春眠不觉晓；", "处处闻啼鸟。"]),
    ("先说第一点。春眠不觉晓；处处闻啼鸟。", ["先说第一点。", "春眠不觉晓；处处闻啼鸟。"]),
    ("😊 你好，世界", ["😊 你好，", "世界"]),
    ("好的！😄 我们开始。🎉", ["好的！", "😄 我们开始。"]),
    ("你好,我是小智!很高兴认识你.再见", ["你好,", "我是小智!", "很高兴认识你.", "再见"]),
    ("请看 https://example.com/a,b?c=1。很有用。", ["请看 https://example.com/a,b?c=1。", "很有用。"]),
    ("[点这里，看看](https://a.b/c)，好的。", ["[点这里，看看](https://a.b/c)，", "好的。"]),
    ("我用Python3.11写代码，你呢？", ["我用Python3.11写代码，", "你呢？"]),
    ("好的\n\n我知道了", ["好的", "我知道了"]),
    ("苹果、香蕉、梨。", ["苹果、", "香蕉、梨。"]),
    ("**注意：**这很重要。", ["**注意：", "**这很重要。"]),
]

ENGLISH = [
    ("Sure, I can help. What do you need?", ["Sure,", "I can help.", "What do you need?"]),
    ("Hello! How are you?", ["Hello!", "How are you?"]),
    ("Mr. Smith met Dr. Jones. They talked.", ["Mr. Smith met Dr. Jones.", "They talked."]),
    ("It is 3.14 exactly. Yes.", ["It is 3.14 exactly.", "Yes."]),
    ("We met at 10:30, then left.", ["We met at 10:30,", "then left."]),
    ("He came at 5 p.m. It was late.", ["He came at 5 p.m.", "It was late."]),
    ("He came at 5 p.m. and left.", ["He came at 5 p.m. and left."]),
    ("Fruit, e.g. apples, is good.", ["Fruit,", "e.g. apples, is good."]),
    ("No. I won't.", ["No.", "I won't."]),
    ("Take bus no. 5 home. Go.", ["Take bus no. 5 home.", "Go."]),
    ("On Dec. 5 we met. We left in Dec. It was cold.", ["On Dec. 5 we met.", "We left in Dec.", "It was cold."]),
    ("Bring apples etc. They are good.", ["Bring apples etc.", "They are good."]),
    ("The U.S. Army came. They left.", ["The U.S. Army came.", "They left."]),
    ("J. R. Tolkien wrote it. So do I. Yes.", ["J. R. Tolkien wrote it.", "So do I.", "Yes."]),
    ("Well... I think so. OK.", ["Well...", "I think so.", "OK."]),
    ("Well...maybe. OK.", ["Well...maybe.", "OK."]),
    ('"Go!" he said. "Now." Then he left.', ['"Go!" he said.', '"Now."', "Then he left."]),
    ("(See below.) Then go.", ["(See below.)", "Then go."]),
    ("Really?! Yes!", ["Really?", "! Yes!"]),
    ("See https://a.b/c?d=1,2&e=f. Done.", ["See https://a.b/c?d=1,2&e=f.", "Done."]),
    ("Mail me at a.b@c.de, please.", ["Mail me at a.b@c.de,", "please."]),
    ("1. Apples\n2. Pears\n", ["1. Apples", "2. Pears"]),
    ("It costs $1,000.50, sir.", ["It costs $1,000.50,", "sir."]),
    ("In 1999. Then 2000.", ["In 1999.", "Then 2000."]),
    ("Version 2.0.1 is out; get it.", ["Version 2.0.1 is out;", "get it."]),
    ("Note: this works.", ["Note:", "this works."]),
    ("I", ["I"]),
    ("Use a != b! Good.", ["Use a != b!", "Good."]),
]


@pytest.mark.parametrize(("text", "clauses"), CHINESE + ENGLISH)
def test_sentences_are_cut_where_a_reader_pauses(text: str, clauses: list[str]) -> None:
    assert split(text) == clauses


@pytest.mark.parametrize("text", [text for text, _ in CHINESE + ENGLISH])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_pieces_in_which_a_text_arrives_make_no_difference(text: str, size: int) -> None:
    assert split(text, size) == split(text)


TEXTS = st.text(
    st.sampled_from(list("你好的吗了世界小智abcAB 12.,;:!?，。！？；：、…\n\"“”‘’'()（）[]*`#-/@$😀🙂")), max_size=160
)


@given(TEXTS, st.lists(st.integers(1, 9), min_size=1, max_size=8), st.booleans())
def test_nothing_is_lost_or_changed_and_cuts_do_not_depend_on_pieces(text: str, sizes: list[int], merge: bool) -> None:
    clauses = split(text, *sizes, merge=merge)
    joined = "".join("".join(clauses).split())
    bare = "".join(text.split())
    assert bare.startswith(joined)
    assert speakable_chars(bare[len(joined) :]) == 0  # only what cannot be spoken may be left over
    assert all(speakable_chars(clause) for clause in clauses)
    assert all(clause == clause.strip() for clause in clauses)
    assert all(units(clause) <= 100.5 for clause in clauses)
    if not merge:
        assert clauses == split(text)


@given(st.text(max_size=80), st.integers(1, 5))
def test_any_text_at_all_is_taken(text: str, size: int) -> None:
    assert split(text, size) == split(text)


def test_the_first_clause_needs_no_further_character_in_chinese() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("🙂 好的") == []
    assert splitter.push("，") == ["🙂 好的，"]
    assert splitter.push("我来") == []
    assert splitter.push("。") == []  # a quote may follow
    assert splitter.push("你") == ["我来。"]


def test_the_first_clause_needs_no_further_character_behind_an_english_word() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("Sure,") == ["Sure,"]
    assert ClauseSplitter().push("Hello!") == ["Hello!"]
    assert ClauseSplitter().push("It is 3,") == []


def test_a_first_clause_without_any_mark_is_cut_by_length() -> None:
    text = "北京是中华人民共和国的首都也是全国的政治文化中心它有着三千多年的建城史"
    first, *_ = split(text)
    assert 12 <= units(first) <= 24
    assert first == "北京是中华人民共和国的首都也是全国的"  # behind a particle, not inside a word
    words = split("The capital of France is Paris and it is a very beautiful city that many people love to visit")
    assert words[0].endswith("love")
    assert units(words[0]) <= 24


def test_a_long_sentence_is_cut_at_its_last_comma() -> None:
    text = "好的，" + "这是一个很长的句子" * 8 + "，" + "它一直没有结束" * 5
    _, second, *rest = split(text)
    assert second.endswith("，")
    assert units(second) == 72
    assert rest


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("我觉得", []),  # too little
        ("我觉得今天的天", ["我觉得今天的"]),
        ("我觉得今天天气不错适合", ["我觉得今天天气不错适合"]),
        ("The quick brown fox jumps ov", ["The quick brown fox jumps"]),
        ("The capital of the", []),
        ("I would like to tell you a story about the his", ["I would like to tell you a story"]),
        ("看 [这个链接里的内容非常", []),  # an address may follow
    ],
)
def test_an_overdue_first_clause_is_cut_where_it_hurts_least(text: str, cut: list[str]) -> None:
    splitter = ClauseSplitter()
    assert splitter.push(text) == []
    assert splitter.waits_for_first
    assert splitter.cut_now() == cut
    assert "".join(cut + splitter.flush()).replace(" ", "") == text.replace(" ", "")


def test_only_the_first_clause_is_ever_overdue() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("好的，我觉得今天天气不错适合") == ["好的，"]
    assert not splitter.waits_for_first
    assert splitter.cut_now() == []


def test_emoji_alone_are_not_waited_for() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("😊😊") == []
    assert not splitter.waits_for_first
    assert splitter.flush() == []


def test_sentences_are_joined_while_much_is_queued() -> None:
    splitter = ClauseSplitter()
    assert splitter.push("好的，", merge=True) == ["好的，"]  # somebody waits for the first
    assert splitter.push("第一句话。第二句话。第", merge=True) == []
    assert splitter.holds
    assert splitter.push("三句话。第四", merge=False) == ["第一句话。第二句话。第三句话。"]
    assert splitter.push("句话。好", merge=True) == []
    assert splitter.release() == ["第四句话。"]
    assert splitter.flush() == ["好"]


def test_joined_sentences_keep_their_blanks_and_do_not_grow_without_end() -> None:
    splitter = ClauseSplitter()
    splitter.push("Well, ")
    assert splitter.push("One here. Two there. ", merge=True) == []
    assert splitter.release() == ["One here. Two there."]
    clauses = splitter.push("这句话一共有十二个字呢。" * 9 + "完", merge=True)
    assert clauses
    assert all(units(clause) <= 45 for clause in clauses)


def test_a_later_held_clause_of_the_first_push_is_not_lost() -> None:
    clauses = split("你好！第一句。第二句。第三句。", merge=True)
    assert clauses == ["你好！", "第一句。第二句。第三句。"]


def test_an_endless_word_is_cut_in_the_end() -> None:
    clauses = split("a" * 1000)
    assert "".join(clauses) == "a" * 1000
    assert max(map(len, clauses)) <= 301


@pytest.mark.parametrize(
    "piece", [".", "!", "。", '"', "\n", " ", "(", "a,", "a.b/", "1、", 'a!"', "/!", "，", "a!。”"]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_flood_of_marks_costs_no_more_than_its_length(piece: str, at_once: bool) -> None:
    """A rule that looks back again and again takes sixteen times as long for four times the text, or more."""
    sizes = [] if at_once else [1]
    assert growth(lambda length: split((piece * length)[:length], *sizes), 1000) < 10


def test_what_follows_very_many_marks_does_not_depend_on_pieces() -> None:
    text = "好" + "！" * 70 + "好" + "." * 200 + "再见" + "!" * 90 + "。"
    assert split(text, 1) == split(text) == split(text, 7)
