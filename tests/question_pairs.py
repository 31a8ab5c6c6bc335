"""Pairs of questions with the truth: does the answer to one serve for the other? Written before the rules were tuned.

`HELD_OUT` was written afterwards and has not been tuned on.
"""

SAME = """
法国的首都是哪里 | 请问法国的首都是哪里
法国的首都是哪里 | 哪里是法国的首都
法国的首都是哪里 | 告诉我法国的首都是什么
法国的首都在哪里 | 法国首都是哪儿
天空为什么是蓝色的 | 为什么天空是蓝色的
天空为什么是蓝色的 | 你知道天空为什么是蓝的颜色吗
珠穆朗玛峰有多高 | 请问珠穆朗玛峰有多高啊
光速是多少 | 请问光的速度是多少
什么是黑洞 | 黑洞是什么
什么是黑洞 | 给我介绍一下黑洞
什么是黑洞 | 你能解释一下什么是黑洞吗
什么是量子力学 | 讲讲量子力学
怎么煮鸡蛋 | 如何煮鸡蛋
怎么煮鸡蛋 | 鸡蛋怎么煮
怎样才能学好英语 | 如何学好英语
恐龙为什么灭绝了 | 恐龙为什么会灭绝
恐龙为什么灭绝了 | 为什么恐龙灭绝了呢
李白是谁 | 谁是李白
李白是谁 | 介绍一下李白
电话是谁发明的 | 谁发明了电话
西红柿怎么做好吃 | 番茄怎么做好吃
长城有多长 | 我想知道长城有多长
蜘蛛有几条腿 | 蜘蛛有多少条腿
水的化学式是什么 | 告诉我水的化学式
地球到月球有多远 | 地球到月亮有多远
鲸鱼是鱼吗 | 请问鲸鱼是不是鱼
三加五等于几 | 3加5等于多少
人体有多少块骨头 | 人体有206块骨头是真的吗 | no
感冒了怎么办 | 感冒怎么办
猫为什么怕水 | 为什么猫怕水
彩虹是怎么形成的 | 彩虹怎么形成
企鹅生活在哪里 | 企鹅在哪里生活
what is the capital of france | what's the capital of france
what is the capital of france | can you tell me what the capital of france is
what is the capital of france | please tell me the capital of france
what is the capital of france | what is france's capital
why is the sky blue | can you tell me why the sky is blue
why is the sky blue | do you know why the sky is blue
how tall is mount everest | how tall is mt everest
how tall is mount everest | please tell me how tall mount everest is
who wrote hamlet | who was hamlet written by
who wrote hamlet | tell me who wrote hamlet
who invented the telephone | do you know who invented the telephone
what is photosynthesis | explain photosynthesis
what is photosynthesis | can you explain what photosynthesis is
what is photosynthesis | tell me about photosynthesis
what is a black hole | what are black holes
how many legs does a spider have | how many legs do spiders have
why do cats purr | why does a cat purr
why do cats purr | tell me why cats purr
how do airplanes fly | how does an airplane fly
what is the largest ocean | what's the biggest ocean
what is the largest city in china | what is china's largest city
what is twelve times three | what's 12 times 3
how far is the moon from the earth | tell me how far the moon is from the earth
when was the telephone invented | do you know when the telephone was invented
how do you boil an egg | how do i boil an egg
is a whale a fish | are whales fish
what does dna mean | what is the meaning of dna
how long do dogs live | how long does a dog live
what is the boiling point of water | what's the water's boiling point
where do penguins live | in what place do penguins live
what is gravity | hey xiaozhi what is gravity
为什么会有彩虹 | 为什么有彩虹
台风是怎么形成的 | 嗯，台风怎么形成呀
中国上最高的山是什么 | 呃，中国上最高的山是哪个
十二加七等于几 | 12加7等于多少啊？
why do lions hunt hyenas | um tell me why lions hunt hyenas
what is the population of peru | excuse me, what is peru's population
"""
"""One pair a line; `| no` at the end says that it is not the same after all."""

DIFFERENT = """
法国的首都是哪里 | 德国的首都是哪里
法国的首都是哪里 | 法国的人口是多少
法国的首都是哪里 | 法国的国旗是什么样
李白是谁 | 杜甫是谁
李白是谁 | 李白是谁的朋友
李白是哪里人 | 李白是谁
珠穆朗玛峰有多高 | 富士山有多高
珠穆朗玛峰有多高 | 珠穆朗玛峰在哪里
三加五等于几 | 三加六等于几
三加五等于几 | 三减五等于几
三十五乘以二 | 三十五除以二
一公里等于多少米 | 一公里等于多少英里
一斤等于多少克 | 一公斤等于多少克
世界上最大的国家是哪个 | 世界上最小的国家是哪个
世界上最高的山是什么 | 世界上第二高的山是什么
世界上最长的河 | 世界上最短的河
猫能吃巧克力吗 | 猫不能吃巧克力吗
猫能吃巧克力吗 | 狗能吃巧克力吗
孕妇可以喝咖啡吗 | 孕妇不可以喝咖啡吗
哪些水果含糖高 | 哪些水果含糖低
为什么天空是蓝色的 | 为什么大海是蓝色的
为什么天空是蓝色的 | 天空是蓝色的吗
狗为什么追猫 | 猫为什么追狗
中国比美国大吗 | 美国比中国大吗
从北京到上海要多久 | 从上海到北京要多久
从北京到上海要多久 | 从北京到广州要多久
电话是谁发明的 | 电话是什么时候发明的
电话是谁发明的 | 电灯是谁发明的
怎么煮鸡蛋 | 怎么煎鸡蛋
怎么煮鸡蛋 | 怎么煮鸭蛋
怎么开灯 | 怎么关灯
怎么煮米饭 | 为什么要煮米饭
春节是怎么来的 | 中秋是怎么来的
唐朝有多少年 | 宋朝有多少年
唐朝有多少个皇帝 | 唐朝有多少年
太阳有多大 | 太阳有多远
太阳有多大 | 月亮有多大
水的沸点是多少 | 水的冰点是多少
水的沸点是多少摄氏度 | 水的沸点是多少华氏度
蜘蛛有几条腿 | 蚂蚁有几条腿
蜘蛛有几条腿 | 蜘蛛有几只眼睛
企鹅会飞吗 | 企鹅会游泳吗
企鹅生活在南极吗 | 企鹅生活在北极吗
吸烟的好处 | 吸烟的坏处
左手定则是什么 | 右手定则是什么
如何减肥 | 如何增肥
牛顿第一定律是什么 | 牛顿第二定律是什么
1998年世界杯谁赢了 | 2002年世界杯谁赢了
张三丰是谁 | 张三是谁
小明有三个苹果吃了一个还剩几个 | 小明有五个苹果吃了一个还剩几个
what is the capital of france | what is the capital of germany
what is the capital of france | what is the population of france
what is the capital of france | what is the capital of france known for
who wrote hamlet | who wrote macbeth
who wrote hamlet | when was hamlet written
who wrote hamlet | who played hamlet
why is the sky blue | why is the sea blue
why is the sky blue | is the sky blue
how tall is mount everest | how tall is mount fuji
how tall is mount everest | how old is mount everest
how many legs does a spider have | how many eyes does a spider have
how many legs does a spider have | how many legs does an ant have
how many feet are in a mile | how many miles are in a foot
how many grams are in a pound | how many grams are in an ounce
what is twelve times three | what is twelve times four
what is twelve times three | what is twelve plus three
what is 15 percent of 80 | what is 50 percent of 80
what is the largest planet | what is the smallest planet
what is the largest ocean | what is the second largest ocean
can dogs eat chocolate | can dogs not eat chocolate
can dogs eat chocolate | can cats eat chocolate
why can't penguins fly | why can penguins fly
is it safe to eat raw eggs | is it not safe to eat raw eggs
do penguins live at the north pole | do penguins live at the south pole
why do dogs chase cats | why do cats chase dogs
how do i get from london to paris | how do i get from paris to london
is russia bigger than china | is china bigger than russia
how do i convert celsius to fahrenheit | how do i convert fahrenheit to celsius
what happened in nineteen forty five | what happened in nineteen forty
who was the first man on the moon | who was the last man on the moon
who was the first president of the united states | who was the second president of the united states
when does summer start | when does winter start
when does summer start | when does summer end
what is the boiling point of water | what is the freezing point of water
what is the boiling point of water | what is the boiling point of alcohol
how do you boil an egg | how do you fry an egg
how do you turn the heater on | how do you turn the heater off
what are the advantages of coffee | what are the disadvantages of coffee
who is li bai | who is du fu
who is the king of england | who is the queen of england
how long do dogs live | how long do cats live
how long do dogs live | where do dogs live
what is a black hole | what is a worm hole
what is a black hole | how big is a black hole
who invented the telephone | who invented the television
what is left of right | what is right of left
what is the son of the king called | what is the king of the son called
tell me about mars | tell me about venus
how high can a cat jump | how high can a dog jump
what rhymes with orange | what rhymes with purple
what is the past tense of go | what is the past tense of do
how do you spell receive | how do you spell believe
什么是黑洞 | what is a black hole
地铁是什么 | 铁是什么
北京的地铁有多长 | 北京的铁有多长
会计在中国古代有什么用处 | 计在中国古代有什么用处
为什么公有制对人类很重要 | 为什么公制对人类很重要
为什么会长对人类很重要 | 为什么长对人类很重要
分子是什么 | 子是什么
什么是解释器 | 器是什么
什么是酒吧 | 什么是酒
目的是什么 | 目是什么
can dogs eat grapes | should dogs eat grapes
can dogs eat grapes | do dogs eat grapes
do whales have legs | did whales have legs
is there life on mars | was there life on mars
is there life on mars | will there be life on mars
what are arms | what is an arm
what is news | what is new
what is a god | what is the name of a god
what is a radio | what is an am radio
how important is love | how important is to love
"""

HELD_OUT_SAME = """
牛奶为什么是白色的 | 为什么牛奶是白色的呀
请问什么是区块链 | 区块链是什么
月球离地球有多远 | 请问月亮离地球有多远呢
蜜蜂是怎么酿蜜的 | 蜜蜂怎么酿蜜
熊猫吃什么 | 你知道熊猫吃什么吗
what is the speed of light | tell me the speed of light
why do leaves change color | do you know why leaves change color
who painted the mona lisa | can you tell me who painted the mona lisa
what is an atom | what are atoms
how do magnets work | explain how magnets work
"""
HELD_OUT_DIFFERENT = """
牛奶为什么是白色的 | 雪为什么是白色的
什么是区块链 | 什么是比特币
月球离地球有多远 | 火星离地球有多远
蜜蜂怎么酿蜜 | 蜜蜂怎么采蜜
熊猫吃什么 | 熊猫不吃什么
一年有多少天 | 一年有多少周
五的平方是多少 | 五的立方是多少
谁打败了项羽 | 项羽打败了谁
儿子的爸爸是谁 | 爸爸的儿子是谁
喝茶前能吃药吗 | 喝茶后能吃药吗
what is the speed of light | what is the speed of sound
why do leaves change color | why do leaves fall
who painted the mona lisa | who stole the mona lisa
what is an atom | what is a molecule
how do magnets work | how do magnets stop working
what eats snakes | what do snakes eat
who did brutus kill | who killed brutus
is tea better than coffee | is coffee better than tea
how many cups in a gallon | how many gallons in a cup
can i take ibuprofen with alcohol | can i take ibuprofen without alcohol
what is the mother of the bride called | what is the bride of the mother called
how many days are in february | how many days are in march
"""


def pairs(table: str, *, same: bool) -> list[tuple[str, str, bool]]:
    """The lines of a table as (one, other, same)."""
    found = []
    for line in table.strip().splitlines():
        one, other, *mark = (part.strip() for part in line.split("|"))
        found.append((one, other, same and mark != ["no"]))
    return found


PAIRS = pairs(SAME, same=True) + pairs(DIFFERENT, same=False)
HELD_OUT = pairs(HELD_OUT_SAME, same=True) + pairs(HELD_OUT_DIFFERENT, same=False)
