"""Questions out of templates, for `bench.cache_precision`: what each asks, and several ways to put it."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

# Words that fill the places of the templates: those of one line make a question of the same kind.
_ZH_THINGS: Final = (
    "黑洞 彩虹 光合作用 量子力学 区块链 地震 火山 台风 细胞 基因 维生素 磁铁 雷达 卫星 冰川 珊瑚".split()
)
_ZH_PEOPLE: Final = "李白 杜甫 苏轼 牛顿 爱因斯坦 居里夫人 孔子 孟子 屈原 鲁迅 贝多芬 莫扎特".split()
_ZH_COUNTRIES: Final = "法国 德国 日本 韩国 泰国 埃及 巴西 加拿大 意大利 西班牙 冰岛 秘鲁 智利 古巴".split()
_ZH_CITIES: Final = "北京 上海 广州 成都 西安 武汉 拉萨 洛阳 桂林 温州".split()
_ZH_ANIMALS: Final = "熊猫 企鹅 长颈鹿 大象 蝙蝠 鲸鱼 蜘蛛 蚂蚁 章鱼 鳄鱼 猫头鹰 松鼠".split()
_ZH_DISHES: Final = "米饭 鸡蛋 面条 饺子 红烧肉 番茄炒蛋 豆浆 馒头".split()
_ZH_INVENTIONS: Final = "电话 电灯 飞机 火车 蒸汽机 望远镜 造纸术 印刷术".split()
_ZH_ADJECTIVES: Final = ("高", "大", "长", "重", "远", "深", "快", "热")
_ZH_DEEDS: Final = (("追", "狗", "猫"), ("吃", "鸟", "虫"), ("打败了", "刘邦", "项羽"), ("教", "老师", "学生"))
# Two words of which one is the other with a character that carries little meaning elsewhere.
_ZH_NEAR: Final = tuple(
    "地铁/铁 地球/球 地雷/雷 地道/道 地板/板 地主/主 会计/计 会议/议 会所/所 要塞/塞 要素/素 有机物/机物 "
    "有理数/理数 公有制/公制 目的/目 的士/士 吗啡/啡 呢子/子 个人/人 个体/体 是非/非 得分/分 着火点/火点 着陆/陆 "
    "得失/失 会诊/诊 地瓜/瓜 地毯/毯 地图/图 地质/质 地中海/中海 有氧运动/氧运动 有色金属/色金属 会员/员 会长/长 "
    "要害/害 大概率/概率 介绍信/信 请帖/帖 说唱/唱 讲义/义 通常量/常量 大约数/约数 解释权/权 解释器/器 网吧/网 "
    "酒吧/酒 喇嘛/喇 了望塔/望塔 知道分子/分子 麻烦制造者/制造者 一般等价物/等价物".split()
)

_EN_THINGS: Final = (
    "a black hole|a rainbow|photosynthesis|gravity|an earthquake|a volcano|a cell|a gene|radar|a satellite|a glacier|"
    "coral|electricity|an atom|a molecule|yeast"
).split("|")
_EN_PEOPLE: Final = (
    "isaac newton|albert einstein|marie curie|confucius|charles darwin|frida kahlo|nikola tesla|alan turing|"
    "ada lovelace"
).split("|")
_EN_COUNTRIES: Final = "france germany japan thailand egypt brazil canada iceland peru chile cuba kenya nepal".split()
_EN_CITIES: Final = "paris london madrid oslo lima cairo delhi dublin geneva".split()
_EN_ANIMALS: Final = "panda penguin giraffe elephant bat whale spider ant octopus crocodile owl squirrel".split()
_EN_DISHES: Final = "rice|an egg|pancakes|bread|lasagna|tomato soup|porridge".split("|")
_EN_WORKS: Final = "hamlet|macbeth|faust|the odyssey|war and peace|dracula|emma".split("|")
_EN_ADJECTIVES: Final = ("tall", "big", "long", "heavy", "old", "deep", "fast", "hot")
_EN_DEEDS: Final = (
    ("chase", "dogs", "cats"), ("eat", "birds", "worms"), ("hunt", "lions", "hyenas"), ("fear", "mice", "snakes"),
)  # fmt: skip
_EN_NEAR: Final = (
    "news/new|arms/arm|customs/custom|goods/good|jeans/jean|lens/len|mars/mar|savings/saving|manners/manner|"
    "life/the meaning of life|a god/the name of a god|energy/will energy|a can/a cat|a will/a mill|"
    "love/to love|"
    "an it department/a department|a must/a mist|a well/a wall|war/just war|the mean/a mean person|"
    "physics/physic|a has been/a bean|the do it yourself movement/the movement|a call/a called strike|"
    "a name tag/a tag|an in joke/a joke|being there/being|an am radio/a radio|a can opener/an opener"
)


def questions_zh() -> Iterator[tuple[str, str, Sequence[str]]]:
    """What a question asks, the question, and other ways to put it."""
    for thing in _ZH_THINGS:
        yield f"{thing}:what", f"什么是{thing}", (f"{thing}是什么", f"解释一下什么是{thing}", f"给我介绍一下{thing}")
        yield f"{thing}:how", f"{thing}是怎么形成的", (f"{thing}怎么形成",)
        yield f"{thing}:why", f"为什么会有{thing}", (f"为什么有{thing}",)
    for person in _ZH_PEOPLE:
        yield f"{person}:who", f"{person}是谁", (f"谁是{person}", f"介绍一下{person}是谁")
        yield f"{person}:when", f"{person}是什么时候出生的", (f"{person}什么时候出生",)
        yield f"{person}:where", f"{person}是哪里人", ()
    for country in _ZH_COUNTRIES:
        yield f"{country}:capital", f"{country}的首都是哪里", (f"哪里是{country}的首都", f"{country}首都是哪儿")
        yield f"{country}:people", f"{country}有多少人口", (f"{country}人口有多少",)
        yield f"{country}:language", f"{country}人说什么语言", ()
    for animal in _ZH_ANIMALS:
        yield f"{animal}:legs", f"{animal}有几条腿", (f"{animal}有多少条腿",)
        yield f"{animal}:eats", f"{animal}吃什么", (f"{animal}都吃什么",)
        yield f"{animal}:can", f"{animal}能吃巧克力吗", ()
        yield f"{animal}:cannot", f"{animal}不能吃巧克力吗", ()
    for dish in _ZH_DISHES:
        yield f"{dish}:boil", f"怎么做{dish}", (f"如何做{dish}", f"{dish}怎么做")
        yield f"{dish}:why", f"为什么做{dish}要放盐", ()
    for thing in _ZH_INVENTIONS:
        yield f"{thing}:who", f"谁发明了{thing}", (f"{thing}是谁发明的",)
        yield f"{thing}:when", f"{thing}是什么时候发明的", ()
    for one, other in itertools.permutations(_ZH_CITIES[:6], 2):
        yield f"{one}>{other}", f"从{one}到{other}有多远", ()
        yield f"{one}<{other}", f"{one}比{other}大吗", ()
    for deed, one, other in _ZH_DEEDS:
        yield f"{one} {deed} {other}", f"{one}为什么{deed}{other}", (f"为什么{one}{deed}{other}",)
        yield f"{other} {deed} {one}", f"{other}为什么{deed}{one}", (f"为什么{other}{deed}{one}",)
    for thing, adjective in itertools.product(("太阳", "长城", "珠穆朗玛峰", "马里亚纳海沟"), _ZH_ADJECTIVES):
        yield f"{thing}:{adjective}", f"{thing}有多{adjective}", ()
    for place, rank in itertools.product(("世界", "中国"), ("最高", "最低", "最大", "最小", "第二高", "第三大")):
        yield f"{place}{rank}", f"{place}上{rank}的山是什么", (f"{place}上{rank}的山是哪个",)
    for first, second in itertools.product((3, 12, 25, 108), (2, 7, 40)):
        for sign, word in (("plus", "加"), ("minus", "减"), ("times", "乘以"), ("by", "除以")):
            yield (
                f"{first} {sign} {second}",
                f"{first}{word}{second}等于几",
                (f"{_zh(first)}{word}{_zh(second)}等于多少",),
            )
    for unit, other in itertools.permutations(("公里", "米", "英里", "厘米", "斤", "克"), 2):
        yield f"{unit} in {other}", f"一{unit}等于多少{other}", ()
    for pair in _ZH_NEAR:
        for word in pair.split("/"):
            yield f"{word}:near", f"{word}是什么", (f"什么是{word}",)
            yield f"{word}:near2", f"{word}在中国古代有什么用处", ()
            yield f"{word}:near3", f"为什么{word}对人类很重要", ()


def questions_en() -> Iterator[tuple[str, str, Sequence[str]]]:
    """As `questions_zh`, in English."""
    for thing in _EN_THINGS:
        yield f"{thing}:what", f"what is {thing}", (f"explain what {thing} is", f"tell me about {thing}")
        yield f"{thing}:how", f"how does {thing} work", (f"explain how {thing} works",)
        yield f"{thing}:big", f"how big is {thing}", (f"tell me how big {thing} is",)
    for person in _EN_PEOPLE:
        yield f"{person}:who", f"who was {person}", (f"tell me who {person} was",)
        yield f"{person}:when", f"when was {person} born", ()
        yield f"{person}:where", f"where was {person} born", ()
    for country in _EN_COUNTRIES:
        yield (
            f"{country}:capital", f"what is the capital of {country}",
            (f"what's the capital of {country}", f"what is {country}'s capital", f"tell me the capital of {country}"),
        )  # fmt: skip
        yield f"{country}:people", f"what is the population of {country}", (f"what is {country}'s population",)
        yield f"{country}:known", f"what is the capital of {country} known for", ()
    for animal in _EN_ANIMALS:
        article = "an" if animal[0] in "aeiou" else "a"
        yield f"{animal}:legs", f"how many legs does {article} {animal} have", (f"how many legs do {animal}s have",)
        yield f"{animal}:eyes", f"how many eyes does {article} {animal} have", ()
        yield f"{animal}:eats", f"what do {animal}s eat", (f"what does {article} {animal} eat",)
        yield f"{animal}:eaten", f"what eats {animal}s", ()
        yield f"{animal}:can", f"can {animal}s eat chocolate", ()
        yield f"{animal}:cannot", f"why can't {animal}s eat chocolate", ()
        yield f"{animal}:should", f"should {animal}s eat chocolate", ()
        yield f"{animal}:do", f"do {animal}s eat chocolate", ()
        yield f"{animal}:did", f"did {animal}s eat chocolate", ()
    for dish in _EN_DISHES:
        yield f"{dish}:boil", f"how do you cook {dish}", (f"how do i cook {dish}",)
        yield f"{dish}:without", f"how do you cook {dish} without water", ()
        yield f"{dish}:with", f"how do you cook {dish} with water", ()
    for work in _EN_WORKS:
        yield f"{work}:who", f"who wrote {work}", (f"tell me who wrote {work}",)
        yield f"{work}:when", f"when was {work} written", ()
        yield f"{work}:what", f"what is {work} about", ()
    for one, other in itertools.permutations(_EN_CITIES[:6], 2):
        yield f"{one}>{other}", f"how far is it from {one} to {other}", ()
        yield f"{one}<{other}", f"is {one} bigger than {other}", ()
    for deed, one, other in _EN_DEEDS:
        yield f"{one} {deed} {other}", f"why do {one} {deed} {other}", (f"tell me why {one} {deed} {other}",)
        yield f"{other} {deed} {one}", f"why do {other} {deed} {one}", ()
    for thing, adjective in itertools.product(("the sun", "everest", "the great wall"), _EN_ADJECTIVES):
        yield f"{thing}:{adjective}", f"how {adjective} is {thing}", ()
    for rank in ("highest", "lowest", "second highest", "third highest", "oldest", "youngest"):
        yield rank, f"what is the {rank} mountain in europe", ()
        yield f"{rank}:asia", f"what is the {rank} mountain in asia", ()
    for first, second in itertools.product((3, 12, 25, 108), (2, 7, 40)):
        for sign in ("plus", "minus", "times", "divided by"):
            yield f"{first} {sign} {second}", f"what is {first} {sign} {second}", (f"what's {first} {sign} {second}",)
    for unit, other in itertools.permutations(("miles", "feet", "meters", "grams", "ounces", "pounds"), 2):
        yield f"{unit} in {other}", f"how many {unit} are in ten {other}", ()
    for is_was in ("is", "was", "will"):
        yield f"{is_was}:life", f"{is_was} there{' be' * (is_was == 'will')} life on mars", ()
    for pair in _EN_NEAR.split("|"):
        for word in pair.split("/"):
            yield f"{word}:near", f"what is {word}", ()
            yield f"{word}:near2", f"how important is {word} in ancient history", ()


def _zh(number: int) -> str:
    digits = "零一二三四五六七八九"
    hundreds, rest = divmod(number, 100)
    tens, ones = divmod(rest, 10)
    text = f"{digits[hundreds]}百" if hundreds else ""
    if tens:
        text += ("" if tens == 1 and not hundreds else digits[tens]) + "十"
    elif hundreds and ones:
        text += "零"
    return text + (digits[ones] if ones else "")
