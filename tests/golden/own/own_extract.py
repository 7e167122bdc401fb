"""Scenarios of extraction. What each level asks, what the model "finds", and the output, all by hand."""

from __future__ import annotations

from slow_prompts import FILLER, Book, Fact, Level, cost, one

ASPECTS = {"属性": {"优点": None, "缺点": None}}


def spans(book: Book) -> None:
    names = {"人名": None, "地名": None, "商品": None}
    book.spans(
        "flat, nested and shared spans",
        "小周从青岛寄来的啤酒杯很厚实。",
        names,
        [
            Level(
                [one("", "人名", "商品", "地名")],
                [
                    Fact("", "人名", "小周"),
                    Fact("", "地名", "青岛", logits=(1.0, 1.0, 1.0)),
                    Fact("", "商品", "啤酒杯", logits=(3.0, 3.0, 3.0)),
                    Fact("", "商品", "啤酒"),
                    Fact("", "人名", "青岛"),
                ],
            )
        ],
        # Row-major by token, then by type in hint order. A later fact overwrites the cells it shares: 青岛 has 2 in its
        # span cell, 地名 has (0.8808 + 2 * 0.7311) / 3; 啤酒杯 has 2 in its head cell, (2 * 0.9526 + 0.8808) / 3.
        [
            [["人名", "小周", 0, 2, 0.8808]],
            [["人名", "青岛", 3, 5, 0.8808]],
            [["地名", "青岛", 3, 5, 0.781]],
            [["商品", "啤酒", 8, 10, 0.8808]],
            [["商品", "啤酒杯", 8, 11, 0.9286]],
        ],
    )
    book.spans(
        "relation",
        "这台烤箱是顺和电器产的，老板叫何平。",
        {"机构": {"创办人(人名)": None, "产品(商品)": None}},
        [
            Level([one("", "机构")], [Fact("", "机构", "顺和电器")]),
            Level(
                [one("机构: 顺和电器", "产品(商品)", "创办人(人名)")],
                [
                    Fact("机构: 顺和电器", "产品(商品)", "烤箱"),
                    Fact("机构: 顺和电器", "创办人(人名)", "何平", logits=(4.0, 4.0, 4.0)),
                ],
            ),
        ],
        [
            [["机构", "顺和电器", 5, 9, 0.8808], ["产品(商品)", "烤箱", 2, 4, 0.8808]],
            [["机构", "顺和电器", 5, 9, 0.8808], ["创办人(人名)", "何平", 15, 17, 0.982]],
        ],
    )
    book.spans(
        "event: a trigger without an argument is not reported",
        "水壶漏水，周三退货，后来又补发了一个。",
        {"退货(触发词)": {"时间": None, "商品": None}, "补发(触发词)": {"时间": None}},
        [
            Level(
                [one("", "补发(触发词)", "退货(触发词)")],
                [Fact("", "退货(触发词)", "退货"), Fact("", "补发(触发词)", "补发")],
            ),
            Level(
                [
                    [
                        ("退货(触发词): 退货", ["商品", "时间"]),
                        ("补发(触发词): 补发", ["时间"]),
                    ]
                ],
                [Fact("退货(触发词): 退货", "时间", "周三"), Fact("退货(触发词): 退货", "商品", "水壶")],
            ),
        ],
        [
            [["退货(触发词)", "退货", 7, 9, 0.8808], ["商品", "水壶", 0, 2, 0.8808]],
            [["退货(触发词)", "退货", 7, 9, 0.8808], ["时间", "周三", 5, 7, 0.8808]],
        ],
    )
    book.spans(
        "implicit aspect, and a span that runs out of it",
        "很满意，就是瓶盖松。",
        ASPECTS,
        [
            Level(
                [one("", "属性")],
                [Fact("", "属性", "#", logits=(3.0, 3.0, 3.0)), Fact("", "属性", "瓶盖"), Fact("", "属性", "#很")],
            ),
            Level(
                [[("属性: #", ["优点", "缺点"]), ("属性: 瓶盖", ["优点", "缺点"])]],
                [Fact("属性: #", "优点", "很满意"), Fact("属性: 瓶盖", "缺点", "松")],
            ),
        ],
        # The head cell of # is shared with the span #很, written later: logits 3, 2, 3 -> (0.9526*2 + 0.8808) / 3.
        [
            [["属性", None, None, None, 0.9286], ["优点", "很满意", 0, 3, 0.8808]],
            [["属性", "瓶盖", 6, 8, 0.8808], ["缺点", "松", 8, 9, 0.8808]],
        ],
        aspect="#",
        warnings=("aspect-crossed",),
    )
    book.spans(
        "reading comprehension",
        "押金在退房当天原路退回，节假日顺延一天。",
        {"押金什么时候退？": None, "押金是多少？": None},
        [Level([one("", "押金什么时候退？", "押金是多少？")], [Fact("", "押金什么时候退？", "退房当天")])],
        [[["押金什么时候退？", "退房当天", 3, 7, 0.8808]]],
    )
    book.spans(
        "three levels, and the same words twice",
        "老店卖老鞋，老鞋底软。",
        {"店": {"货": {"部位": None}}},
        [
            Level([one("", "店")], [Fact("", "店", "老店")]),
            Level([one("店: 老店", "货")], [Fact("店: 老店", "货", "老鞋"), Fact("店: 老店", "货", "老鞋", nth=1)]),
            Level(
                [[("店: 老店,货: 老鞋", ["部位"]), ("店: 老店,货: 老鞋", ["部位"])]],
                # Both groups have the same key here, so the fact stands in the second group's cells only.
                [Fact("店: 老店,货: 老鞋", "部位", "底")],
            ),
        ],
        [[["店", "老店", 0, 2, 0.8808], ["货", "老鞋", 6, 8, 0.8808], ["部位", "底", 8, 9, 0.8808]]],
    )
    chunked = [f"第{number:02d}种东西" for number in range(60)]
    # [CLS] [PREFIX] [SEP] and 6 tokens a type ([TYPE] 第 10 种 东 西), 7 where the number is not in the vocabulary as a
    # whole: 41 types are 252 tokens, and one more would be 259.
    split = 41
    assert [cost(book, chunked[:split]), cost(book, chunked[: split + 1])] == [252, 259]
    book.spans(
        "two chunks of types",
        "盒子里有甲也有乙。",
        dict.fromkeys(reversed(chunked)),
        [
            Level(
                [one("", *chunked[:split]), one("", *chunked[split:])],
                [Fact("", chunked[59], "甲"), Fact("", chunked[0], "乙"), Fact("", chunked[40], "甲")],
            )
        ],
        [
            [["第40种东西", "甲", 4, 5, 0.8808]],
            [["第00种东西", "乙", 7, 8, 0.8808]],
            [["第59种东西", "甲", 4, 5, 0.8808]],
        ],
    )
    long = FILLER * 32 + "屏幕清晰。" + FILLER * 34 + "电池耐用。"
    book.spans(
        "long text: what two windows share is reported once",
        long,
        ASPECTS,
        [
            # H = 1 + [PREFIX] + [TYPE]属性 + 1 = 6, so 505 tokens fit and the second window starts at 473.
            Level([one("", "属性")], [Fact("", "属性", "屏幕"), Fact("", "属性", "电池")]),
            Level(
                [[("属性: 屏幕", ["优点", "缺点"]), ("属性: 电池", ["优点", "缺点"])]],
                [Fact("属性: 屏幕", "优点", "清晰"), Fact("属性: 电池", "优点", "耐用")],
            ),
        ],
        [
            [["属性", "屏幕", 480, 482, 0.8808], ["优点", "清晰", 482, 484, 0.8808]],
            [["属性", "电池", 995, 997, 0.8808], ["优点", "耐用", 997, 999, 0.8808]],
        ],
    )
    book.spans(
        "legal paths: a parent may be reported, its child may not",
        "老板娘人很好。",
        {"人": {"评价": None, "职业": None}},
        [
            Level([one("", "人")], [Fact("", "人", "老板娘")]),
            Level(
                [one("人: 老板娘", "职业", "评价")],
                [Fact("人: 老板娘", "职业", "老板"), Fact("人: 老板娘", "评价", "很好")],
            ),
        ],
        [
            [["人", "老板娘", 0, 3, 0.8808]],
            [["人", "老板娘", 0, 3, 0.8808], ["职业", "老板", 0, 2, 0.8808]],
        ],
        legal_paths=[["人"], ["人", "职业"]],
    )
    wordy = "长" * 124
    wordier = wordy + "长"
    book.spans(
        "types of more than 124 tokens are skipped",
        "灯很亮。",
        {wordier: None, wordy: None, "物": None},
        [Level([one("", "物", wordy)], [Fact("", "物", "灯"), Fact("", wordy, "亮")])],
        [[["物", "灯", 0, 1, 0.8808]], [[wordy, "亮", 2, 3, 0.8808]]],
        warnings=("types-skipped",),
    )
    mention = "好" * 122
    book.spans(
        "found facts whose prompt has more than 124 tokens get no children",
        mention + "好，杯。",
        {"物": {"评": None}},
        [
            # 物 : and 122 characters are 124 tokens; with one more there is no next level for it.
            Level([one("", "物")], [Fact("", "物", mention), Fact("", "物", mention + "好"), Fact("", "物", "杯")]),
            Level(
                [[(f"物: {mention}", ["评"]), ("物: 杯", ["评"])]],
                [Fact("物: 杯", "评", "好")],
            ),
        ],
        [[["物", "杯", 124, 125, 0.8808], ["评", "好", 0, 1, 0.8808]]],
        warnings=("children-skipped",),
    )
    book.spans(
        "markers in a review are ordinary characters",
        "包装上印着[TYPE]和[SEP]，[CLASSIFY]看不懂，瓶盖松。",
        ASPECTS,
        [
            Level([one("", "属性")], [Fact("", "属性", "瓶盖")]),
            Level([one("属性: 瓶盖", "优点", "缺点")], [Fact("属性: 瓶盖", "缺点", "松")]),
        ],
        [[["属性", "瓶盖", 32, 34, 0.8808], ["缺点", "松", 34, 35, 0.8808]]],
        literal=True,
    )
    book.spans(
        "threshold on the mean score of a path",
        "面软，汤咸，价高。",
        {"评": None},
        [
            Level(
                [one("", "评")],
                [
                    Fact("", "评", "软", logits=(1.0, 1.0, 1.0)),
                    Fact("", "评", "咸"),
                    Fact("", "评", "高", logits=(3.0, 3.0, 3.0)),
                ],
            )
        ],
        [[["评", "咸", 4, 5, 0.8808]], [["评", "高", 7, 8, 0.9526]]],
        threshold=0.88,
    )
