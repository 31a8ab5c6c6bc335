"""Words about which two questions must agree to have one answer: opposites, units, places, dates. Pure data."""

from typing import Final

NEGATIONS_ZH: Final = ("不", "没", "别", "无", "非", "未", "勿", "莫")
NEGATIONS_EN: Final = frozenset(
    "not no never none nothing nobody without cannot non neither nor isnt arent dont doesnt didnt cant wont unable "
    "except unless".split()
)

OPPOSITES_ZH: Final = (
    ("大", "小"), ("多", "少"), ("高", "低"), ("高", "矮"), ("长", "短"), ("快", "慢"), ("早", "晚"), ("前", "后"),
    ("左", "右"), ("上", "下"), ("里", "外"), ("内", "外"), ("开", "关"), ("进", "出"), ("冷", "热"), ("新", "旧"),
    ("男", "女"), ("好", "坏"), ("优点", "缺点"), ("好处", "坏处"), ("远", "近"), ("深", "浅"), ("轻", "重"),
    ("厚", "薄"), ("宽", "窄"), ("粗", "细"), ("胖", "瘦"), ("强", "弱"), ("贵", "便宜"), ("增", "减"), ("升", "降"),
    ("买", "卖"), ("借", "还"), ("公", "母"), ("东", "西"), ("南", "北"), ("最大", "最小"), ("第一", "最后"),
    ("开始", "结束"), ("输", "赢"), ("生", "死"), ("软", "硬"), ("干", "湿"), ("亮", "暗"), ("黑", "白"), ("哭", "笑"),
)  # fmt: skip
OPPOSITES_EN: Final = tuple(
    tuple(pair.split("/"))
    for pair in (
        "big/small large/small most/least more/less more/fewer high/low tall/short long/short fast/slow early/late "
        "before/after left/right up/down in/out inside/outside "
        "on/off open/close hot/cold warm/cool new/old young/old "
        "good/bad best/worst biggest/smallest largest/smallest highest/lowest tallest/shortest longest/shortest "
        "fastest/slowest oldest/youngest oldest/newest first/last near/far nearest/farthest hard/soft hard/easy "
        "light/dark light/heavy wet/dry buy/sell start/end start/stop begin/end win/lose increase/decrease rise/fall "
        "rise/set north/south east/west male/female man/woman boy/girl king/queen son/daughter brother/sister "
        "father/mother husband/wife north/east sunrise/sunset "
        "advantage/disadvantage pro/con black/white deep/shallow "
        "strong/weak above/below import/export input/output "
        "plus/minus add/remove cheap/expensive rich/poor love/hate "
        "birth/death born/die push/pull enter/exit arrive/leave morning/evening day/night summer/winter from/to"
    ).split()
)

UNITS_ZH: Final = tuple(
    "公里 千米 海里 英里 厘米 毫米 纳米 英尺 英寸 公斤 千克 "
    "毫克 毫升 摄氏 华氏 美元 欧元 日元 英镑 人民币 小时 分钟 秒 "
    "平方 立方 公顷 亩 吨 磅 斤 克 升 米 度 元 天 周 星期 月 年".split()
)
UNITS_EN: Final = frozenset(
    "kilometer kilometre km mile meter metre centimeter centimetre cm millimeter mm foot feet inch yard kilogram kg "
    "gram pound ounce ton tonne liter litre ml gallon pint celsius fahrenheit kelvin dollar euro yen pound yuan rmb "
    "hour minute second day week month year decade century percent byte bit kb mb gb".split()
)

PLACES_ZH: Final = tuple(
    "中国 美国 英国 法国 德国 日本 韩国 朝鲜 俄罗斯 印度 "
    "意大利 西班牙 加拿大 澳大利亚 巴西 墨西哥 埃及 南非 泰国 越南 "
    "新加坡 马来西亚 荷兰 瑞士 瑞典 挪威 芬兰 丹麦 波兰 希腊 "
    "土耳其 乌克兰 奥地利 葡萄牙 新西兰 阿根廷 北京 上海 广州 深圳 "
    "天津 重庆 成都 杭州 南京 武汉 西安 苏州 长沙 青岛 大连 "
    "厦门 昆明 哈尔滨 香港 澳门 台湾 台北 四川 广东 云南 湖南 湖北 "
    "河南 河北 山东 山西 江苏 浙江 江西 福建 海南 贵州 陕西 "
    "甘肃 西藏 新疆 内蒙古 巴黎 伦敦 纽约 东京 首尔 柏林 罗马 莫斯科 "
    "亚洲 欧洲 非洲 南美洲 北美洲 太平洋 大西洋 印度洋 长江 黄河 月球 月亮 火星 地球 太阳 金星 木星 土星 水星".split()
)
PLACES_EN: Final = frozenset(
    "china america usa england britain uk france germany "
    "japan korea russia india italy spain canada australia brazil "
    "mexico egypt africa thailand vietnam singapore malaysia netherlands switzerland sweden norway finland denmark "
    "poland greece turkey ukraine austria portugal zealand argentina beijing shanghai guangzhou shenzhen chengdu "
    "hangzhou nanjing wuhan hongkong taipei paris london york jersey tokyo seoul berlin rome moscow madrid vienna "
    "washington boston chicago asia europe antarctica pacific atlantic moon mars earth sun venus jupiter saturn "
    "mercury yangtze amazon nile texas california florida".split()
)

DATES_ZH: Final = tuple(
    "大前天 前天 昨天 今天 明天 后天 大后天 上周 这周 下周 "
    "周一 周二 周三 周四 周五 周六 周日 星期一 星期二 星期三 星期四 "
    "星期五 星期六 星期天 星期日 去年 今年 明年 春节 中秋 端午 清明 "
    "国庆 元旦 圣诞 情人节 春天 夏天 秋天 冬天 早上 中午 下午 "
    "晚上 唐朝 宋朝 元朝 明朝 清朝 汉朝 秦朝".split()
)
DATES_EN: Final = frozenset(
    "yesterday today tomorrow tonight monday tuesday wednesday "
    "thursday friday saturday sunday january february march "
    "april may june july august september october november "
    "december spring summer autumn fall winter christmas easter "
    "halloween thanksgiving last next this".split()
)
