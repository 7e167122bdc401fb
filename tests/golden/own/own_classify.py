"""Scenarios of classification. What each level asks, what the model "finds", and the output, all by hand."""

from __future__ import annotations

from slow_prompts import FILLER, Ballot, Book, Level, cost, one


def votes(book: Book) -> None:
    feelings = {"喜欢": None, "讨厌": None}
    yes = (2.0, 2.0, 2.0)
    for name, text, schema, winner in (
        ("sentiment", "杯子漏水，不会再买。", feelings, "讨厌"),
        (
            "matching",
            "段落1：毛衣掉色吗；段落2：毛衣会不会褪色",
            {"文本匹配：相似": None, "文本匹配：不相似": None},
            "文本匹配：相似",
        ),
        (
            "inference",
            "段落1：我昨天收到货了；段落2：货还没有发出",
            {
                "段落2和段落1的关系是：蕴含": None,
                "段落2和段落1的关系是：矛盾": None,
                "段落2和段落1的关系是：中立": None,
            },
            "段落2和段落1的关系是：矛盾",
        ),
        (
            "coreference",
            "壶（候选词）放在炉上，水开了它(代词)会响。",
            {
                "下面的句子中，代词“它”指代的是“壶”吗？是的": None,
                "下面的句子中，代词“它”指代的是“壶”吗？不是": None,
            },
            "下面的句子中，代词“它”指代的是“壶”吗？是的",
        ),
    ):
        hints = [one("", *sorted(schema))]
        book.votes(name, text, schema, [Level(hints, ballots=[Ballot("", winner, yes)])], [[[winner, 0.8808]]])
    both = [one("", "喜欢", "讨厌")]
    book.votes(
        "of two types the better one",
        "说不上来。",
        feelings,
        [Level(both, ballots=[Ballot("", "喜欢", (2.0, 1.0, 1.0)), Ballot("", "讨厌", (2.0, 3.0, 3.0))])],
        # (0.8808 + 2 * 0.9526) / 3
        [[["讨厌", 0.9286]]],
    )
    book.votes(
        "fallback: nothing is positive",
        "哦。",
        feelings,
        [Level(both, ballots=[Ballot("", "讨厌", (-1.0, -2.0, -2.0)), Ballot("", "喜欢", (-1.0, -3.0, -3.0))])],
        # Both read the marker cell -1: 讨厌 (0.2689 + 2 * 0.1192) / 3.
        [[["讨厌", 0.1691]]],
        warnings=("fallback",),
    )
    book.votes(
        "threshold: the best one is not good enough",
        "一般。",
        feelings,
        [Level(both, ballots=[Ballot("", "喜欢", yes)])],
        [],
        threshold=0.9,
    )
    topics = {"物流": None, "价格": None, "质量": None}
    hint = [one("", "价格", "物流", "质量")]
    strong, weak = (4.0, 4.0, 4.0), (4.0, 1.0, 1.0)
    book.votes(
        "multi-label: everything above 0.9",
        "又贵又慢，不过结实。",
        topics,
        [Level(hint, ballots=[Ballot("", "质量", weak), Ballot("", "物流", strong), Ballot("", "价格", strong)])],
        [[["价格", 0.982]], [["物流", 0.982]]],
        kind="multi_classify",
    )
    book.votes(
        "multi-label: nothing above 0.9, so the best one",
        "又贵又慢。",
        topics,
        [Level(hint, ballots=[Ballot("", "质量", (1.0, 1.0, 1.0)), Ballot("", "物流", (1.0, 2.0, 2.0))])],
        # (0.7311 + 2 * 0.8808) / 3
        [[["物流", 0.8309]]],
        kind="multi_classify",
    )
    book.votes(
        "multi-label with a threshold of its own",
        "又贵又慢。",
        topics,
        [Level(hint, ballots=[Ballot("", "质量", (1.0, 1.0, 1.0)), Ballot("", "物流", (1.0, 2.0, 2.0))])],
        [[["物流", 0.8309]], [["质量", 0.7311]]],
        kind="multi_classify",
        threshold=0.7,
    )
    book.votes(
        "multi-label fallback: the best guess alone",
        "嗯。",
        topics,
        [Level(hint, ballots=[Ballot("", "价格", (-1.0, -1.0, -1.0))])],
        [[["价格", 0.2689]]],
        kind="multi_classify",
        warnings=("fallback",),
    )
    tree = {"商品": {"质量": None, "外观": None}, "服务": {"物流": None, "客服": None}, "其他": None}
    top = [one("", "其他", "商品", "服务")]
    book.votes(
        "hierarchical: every positive parent is looked below",
        "客服回得慢，做工也粗。",
        tree,
        [
            Level(top, ballots=[Ballot("", "服务", (2.0, 1.0, 1.0)), Ballot("", "商品", yes)]),
            Level(
                [[("商品: [CLASSIFY]", ["外观", "质量"]), ("服务: [CLASSIFY]", ["客服", "物流"])]],
                ballots=[
                    Ballot("商品: [CLASSIFY]", "质量", (3.0, 1.0, 1.0)),
                    Ballot("服务: [CLASSIFY]", "客服", (3.0, 3.0, 3.0)),
                ],
            ),
        ],
        # 服务 (0.8808 + 2 * 0.7311) / 3 = 0.7810, then 0.9526: sum 1.7336; 商品 0.8808, then 0.8049: sum 1.6857.
        [[["服务", 0.781], ["客服", 0.9526]]],
    )
    book.votes(
        "hierarchical fallback: all parents are looked below",
        "随便写写。",
        {"商品": {"质量": None}, "服务": {"物流": None}},
        [
            Level([one("", "商品", "服务")], ballots=[Ballot("", "商品", (-1.0, -1.0, -1.0))]),
            Level(
                [[("商品: [CLASSIFY]", ["质量"]), ("服务: [CLASSIFY]", ["物流"])]],
                ballots=[
                    Ballot("商品: [CLASSIFY]", "质量", (-2.0, -2.0, -2.0)),
                    Ballot("服务: [CLASSIFY]", "物流", (-2.0, 4.0, 4.0)),
                ],
            ),
        ],
        # 商品 0.2689 + 0.1192; 服务 (0.2689 + 2 * 0.0474) / 3 = 0.1213, then (0.1192 + 2 * 0.9820) / 3 = 0.6944.
        [[["服务", 0.1213], ["物流", 0.6944]]],
        warnings=("fallback",),
    )
    book.votes(
        "hierarchical multi-label, three levels",
        "手机屏幕碎了。",
        {"数码": {"手机": {"屏幕": None, "电池": None}}},
        [
            Level([one("", "数码")], ballots=[Ballot("", "数码", strong)]),
            Level([one("数码: [MULTICLASSIFY]", "手机")], ballots=[Ballot("数码: [MULTICLASSIFY]", "手机", strong)]),
            Level(
                [one("数码: [MULTICLASSIFY],手机: [MULTICLASSIFY]", "屏幕", "电池")],
                ballots=[
                    Ballot("数码: [MULTICLASSIFY],手机: [MULTICLASSIFY]", "屏幕", strong),
                    Ballot("数码: [MULTICLASSIFY],手机: [MULTICLASSIFY]", "电池", (4.0, 1.0, 1.0)),
                ],
            ),
        ],
        # The path of 电池: (0.9820 + 0.9820 + 0.8147) / 3 = 0.9262 is above the cut as well.
        [
            [["数码", 0.982], ["手机", 0.982], ["屏幕", 0.982]],
            [["数码", 0.982], ["手机", 0.982], ["电池", 0.8147]],
        ],
        kind="multi_classify",
    )
    book.votes(
        "long text: the third window votes as well",
        FILLER * 80,
        feelings,
        [
            Level(
                both,
                ballots=[
                    Ballot("", "喜欢", (2.0, 1.0, 1.0), windows=(0, 1)),
                    Ballot("", "讨厌", (2.0, 4.0, 4.0), windows=(2,)),
                    Ballot("", "讨厌", (2.0, 1.0, 1.0), windows=(0,)),
                ],
            )
        ],
        # 喜欢 (0.8808 + 2 * 0.7311) / 3 = 0.7810, twice.
        # 讨厌 the same once, (0.8808 + 2 * 0.9820) / 3 = 0.9483 once; their mean is 0.86465, in binary just above.
        [[["讨厌", 0.8647]]],
    )
    book.votes(
        "long text: a lone type has the scores of its first window",
        FILLER * 80,
        feelings,
        [
            Level(
                both,
                ballots=[Ballot("", "喜欢", (1.0, 1.0, 1.0), windows=(1,)), Ballot("", "喜欢", strong, windows=(2,))],
            )
        ],
        [[["喜欢", 0.7311]]],
    )
    book.votes(
        "long text, multi-label: every type has the scores of the first window that found it",
        FILLER * 80,
        topics,
        [
            Level(
                hint,
                ballots=[
                    Ballot("", "质量", (1.0, 1.0, 1.0), windows=(2,)),
                    Ballot("", "物流", strong, windows=(1,)),
                    Ballot("", "物流", (1.0, 1.0, 1.0), windows=(2,)),
                ],
            )
        ],
        [[["物流", 0.982]]],
        kind="multi_classify",
    )
    chunked = [f"第{number:02d}类话题" for number in range(60)]
    split = 41
    assert [cost(book, chunked[:split]), cost(book, chunked[: split + 1])] == [252, 259]
    book.votes(
        "two chunks: each has a candidate, the better one is reported",
        "说来话长。",
        dict.fromkeys(chunked),
        [
            Level(
                [one("", *chunked[:split]), one("", *chunked[split:])],
                ballots=[Ballot("", chunked[3], yes), Ballot("", chunked[50], (2.0, 3.0, 3.0))],
            )
        ],
        [[["第50类话题", 0.9286]]],
    )
