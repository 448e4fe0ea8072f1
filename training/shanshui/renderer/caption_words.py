"""The phrases of captions: for each language one table from what a scene shows to the ways of saying it.

A phrase is written as a template. `(a|b|)` stands for each of its alternatives, `[drifting/drifts]` for the participle
("mist drifting left", for lists) and the finite verb ("mist drifts left", for sentences). A template without brackets
is for lists only, unless its language has no such difference. Every expansion of a template means exactly one
attribute and value: a caption can be read back, which tests do.
"""

from dataclasses import dataclass


Phrases = dict[str, dict[object, tuple[str, ...]]]

# Entries that are other grammatical forms of an attribute: "an ink" (landscape), a boat "on a calm lake".
FORMS = {"palette_title": "palette", "water_place": "water"}


@dataclass(frozen=True, eq=False)
class Language:
    """The grammar of a language.

    Attributes:
        phrases: Templates by attribute (or form of one, see `FORMS`) and value.
        heads: Format strings with any of the fields `layers`, `palette` and `palette_title`.
        group_sizes: Possible numbers of phrases in a sentence.
        place: Format string with `boat` and `water`.
        comma: Joins phrases.
        last: Join the last two phrases of a list.
        links: Join the last two phrases of a sentence.
        stop: Ends a sentence.
        having: Introduce what a landscape holds.
        limit: Maximum length of a caption, as `captions.words_of` counts.
    """

    phrases: Phrases
    heads: tuple[str, ...]
    group_sizes: tuple[int, ...]
    place: str
    comma: str
    last: tuple[str, ...]
    links: tuple[str, ...]
    stop: str
    having: tuple[str, ...]
    limit: int


def _sides(*templates: str) -> dict[object, tuple[str, ...]]:
    """Return the entries for both sides from templates about the left."""
    mirrored = tuple(template.replace("left", "right").replace("左", "右") for template in templates)
    return {"left": templates, "right": mirrored}


def _counted(numerals: str, *templates: str) -> dict[object, tuple[str, ...]]:
    """Return the entries for two to five from templates with `#` for the number."""
    return {
        number: tuple(template.replace("#", numeral) for template in templates)
        for number, numeral in enumerate(numerals.split(), start=2)
    }


_SIDE = "(left|to the left|leftward)"

ENGLISH = Language(
    phrases={
        "palette_title": {
            "ink": ("an (ink|ink wash)", "a (soft|pale) ink"),
            "blue_green": ("a (blue-green|blue and green)",),
            "autumn": ("an autumn", "a (golden|late) autumn", "an ochre autumn"),
            "snow": ("a (snowy|winter|white winter|snowy winter)",),
            "dawn": ("a (dawn|rosy dawn|rose dawn)",),
        },
        "palette": {
            "ink": ("in (|black |soft |pale )ink", "in ink wash", "in ink and wash", "painted in ink"),
            "blue_green": ("in (blue and green|blue-green)", "in blue-green tones", "painted in blue and green"),
            "autumn": ("in autumn (ochre|tones|gold)", "in ochre tones", "in (late |)autumn", "painted in ochre"),
            "snow": ("under (|deep |white )snow", "in winter (|snow|white)", "covered in snow", "in deep winter"),
            "dawn": ("at (dawn|daybreak)", "at dawn in rose tones", "in the rose of dawn", "in rosy dawn tones"),
        },
        "layers": _counted(
            "two three four five",
            "# (ranges|layers|ridges) of mountains",
            "# (ranges|layers|folds) of (distant |quiet |)(mountains|hills)",
            "# (|distant |layered |quiet )mountain ranges",
            "# mountain (ridges|layers)",
            "(distant |quiet |)(mountains|hills|peaks) in # layers",
            "# layers of peaks",
        ),
        "camera": {
            "still": (
                "a (still|fixed) (camera|view)",
                "the (camera|view) [staying/stays] still",
                "the camera [holding/holds] still",
                "the (camera|view) [resting/rests]",
            ),
            **_sides(
                f"the (camera|view) ([panning/pans]|[moving/moves]|[gliding/glides]) {_SIDE}",
                f"the camera (slowly|gently) [panning/pans] {_SIDE}",
                f"(slowly |gently |)panning {_SIDE}",
                "a (slow|gentle|) pan (left|to the left)",
            ),
            "closer": (
                "the (camera|view) (slowly |gently |)[moving/moves] (closer|nearer)",
                "the camera (slowly |gently |)[pushing/pushes] in",
                "the camera [zooming/zooms] in",
                "(slowly |gently |)(moving closer|pushing in|zooming in)",
            ),
            "away": (
                "the (camera|view) (slowly |gently |)[pulling/pulls] (back|away)",
                "the (camera|view) [moving/moves] (away|back)",
                "the camera [zooming/zooms] out",
                "(slowly |gently |)(pulling back|zooming out)",
            ),
        },
        "water": {
            "lake": (
                "a (|calm |quiet |wide |clear )lake",
                "a (calm|quiet|wide|clear) lake [lying/lies] below",
                "a lake [resting/rests] (below|like a mirror)",
            ),
            "river": (
                "a (|slow |winding |broad )river",
                "a (winding|slow|broad|) river [flowing/flows] (by|below)",
                "a (broad|long|) river [winding/winds] below",
            ),
        },
        "water_place": {
            "lake": ("on a (|calm |quiet |wide |clear )lake", "on the (|calm |quiet )lake"),
            "river": ("on a (|slow |winding |broad )river", "on the (|slow |broad )river"),
        },
        "boat": {
            "still": (
                "a moored (|fishing )boat",
                "a (small |lone |fishing |)boat [lying/lies] (moored|still|at anchor)",
                "a (small |lone |fishing |)boat [resting/rests]",
                "a (small|lone) (boat|skiff) at anchor",
            ),
            **_sides(
                f"a (small|lone|little|fishing|) boat ([sailing/sails]|[drifting/drifts]|[gliding/glides]) {_SIDE}",
                f"a (small|lone) skiff ([gliding/glides]|[drifting/drifts]) {_SIDE}",
            ),
        },
        "mist": _sides(
            f"(|thin |soft |white |low )mist ([drifting/drifts]|[flowing/flows]|[floating/floats]) {_SIDE}",
            f"(|thin |soft |white )(fog|haze) ([drifting/drifts]|[floating/floats]) {_SIDE}",
            f"a veil of mist ([drifting/drifts]|[floating/floats]) {_SIDE}",
            f"(|thin |soft )mist [drifting/drifts] {_SIDE} over the (hills|mountains)",
        ),
        "birds": _sides(
            f"(birds|wild geese|cranes) ([flying/fly]|[gliding/glide]) {_SIDE}",
            f"a (flock of birds|line of geese) [flying/flies] {_SIDE}",
            f"birds on the wing [heading/head] {_SIDE}",
        ),
        "weather": {
            "rain": ("(|light |soft |fine |gentle )rain [falling/falls]", "falling rain", "a (soft|fine|gentle) rain"),
            "snowfall": (
                "(|light |soft |gentle )snow [falling/falls]",
                "snowflakes ([falling/fall]|[drifting/drift] down)",
                "falling (snow|snowflakes)",
            ),
            "petals": (
                "(|plum |peach )(petals|blossoms) ([falling/fall]|[drifting/drift] down)",
                "falling (|plum |peach )(petals|blossoms)",
            ),
        },
        "trees": {
            "pines": (
                "(|old |tall )(pines|pine trees) [swaying/sway] (|in the wind)",
                "swaying (pines|pine trees)",
                "(old |tall |)pines in the wind",
            ),
            "bamboo": (
                "(|tall |young )bamboo [swaying/sways] (|in the wind)",
                "swaying bamboo",
                "(tall |young |)bamboo in the wind",
            ),
        },
        "light": {
            "sun": (
                "(the|a (red|round)) sun",
                "(the|a red|a round|the red|the round) sun ([shining/shines]|[hanging/hangs] (above|high))",
                "a red sun in the sky",
            ),
            "moon": (
                "(the|a (full|round|bright|pale)) moon",
                "(the|a full|a round|a bright|the pale) moon ([shining/shines]|[hanging/hangs] (above|high))",
                "a full moon in the sky",
            ),
        },
        "waterfall": {
            True: (
                "a (|tall |white |long |distant )waterfall",
                "a (tall|white|long|) waterfall ([pouring/pours]|[plunging/plunges]) down",
                "a (tall|white|long|) cascade [pouring/pours] down",
            )
        },
        "pavilion": {
            True: (
                "(a|a small|a quiet|a lone|an old) pavilion",
                "(a|a small|a quiet|a lone|an old) pavilion [standing/stands] (on the slope|among the rocks)",
                "(a|a small|a lone|an old) pavilion [looking/looks] out",
            )
        },
    },
    heads=(
        "{layers} {palette}",
        "{palette_title} landscape of {layers}",
        "{palette_title} painting of {layers}",
        "{palette_title} scroll of {layers}",
        "{palette}, {layers}",
        "{layers}",
        "{palette}",
        "{palette_title} landscape",
        "{palette_title} painting",
        "",
    ),
    group_sizes=(1, 2),
    place="{boat} {water}",
    comma=", ",
    last=(" and ",),
    links=(" and ", " while "),
    stop=". ",
    having=(" with ",),
    limit=45,
)

_SLOWLY = "(|缓缓|慢慢|徐徐)"
_BOAT = "(孤舟|小舟|小船|渔舟|一叶孤舟|一叶扁舟)"
_SWAY = "(摇曳|轻摇|随风摇曳|随风轻摆)"

CHINESE = Language(
    phrases={
        "palette_title": {
            "ink": ("水墨", "淡墨", "墨色"),
            "blue_green": ("青绿", "石青石绿"),
            "autumn": ("秋日", "秋色", "浅绛秋色", "深秋"),
            "snow": ("冬日", "雪后", "寒冬", "冬雪"),
            "dawn": ("黎明", "清晨", "破晓", "朝霞"),
        },
        "palette": {
            "ink": ("水墨晕染", "水墨淋漓", "墨色(淡雅|苍润)", "淡墨轻染"),
            "blue_green": ("青绿设色", "满目青绿", "青绿(相映|明净)", "石青石绿"),
            "autumn": ("秋色满山", "满山秋色", "秋意正浓", "赭色秋意", "秋山如染"),
            "snow": ("白雪(满山|覆山)", "积雪满山", "冬雪皑皑", "银装素裹"),
            "dawn": ("朝霞(满天|映山)", "晨光(熹微|初照)", "天色破晓", "霞光初照"),
        },
        "layers": _counted(
            "两 三 四 五",
            "#(重|层|叠)(山峦|远山|群山|峰峦|山影)",
            "(山峦|远山|群山|峰峦)#(重|层|叠)",
        ),
        "camera": {
            "still": ("(镜头|视角)(静止|不动|固定)", "静止的镜头", "镜头静静不动"),
            **_sides(
                f"(镜头|视线){_SLOWLY}左移",
                f"(镜头|视角){_SLOWLY}向左(移动|平移)",
                f"镜头{_SLOWLY}(左摇|向左摇)",
            ),
            "closer": (
                f"镜头{_SLOWLY}(推近|推进|靠近)",
                f"(镜头|视角){_SLOWLY}拉近",
                "镜头渐近",
            ),
            "away": (
                f"镜头{_SLOWLY}(后退|远去)",
                f"(镜头|视角){_SLOWLY}拉远",
                "镜头渐远",
            ),
        },
        "water": {
            "lake": ("一(片|泓|湾)(湖水|平湖)", "湖水(平静|如镜|清澈)", "(平湖|湖面)如镜", "湖面平静"),
            "river": ("一(条|道)(江水|河流|长河)", "(江水|河水)(缓流|悠悠|蜿蜒)", "(江流|长河)蜿蜒", "江水长流"),
        },
        "water_place": {
            "lake": ("(湖上|湖中|湖面上|平湖上)",),
            "river": ("(江上|江中|河上|江面上)",),
        },
        "boat": {
            "still": (f"{_BOAT}(静泊|停泊|静卧|不动)", "(小船|渔舟)停着"),
            **_sides(f"{_BOAT}(左行|向左行|向左漂|向左去|向左驶去|向左漂去)"),
        },
        "mist": _sides(
            "(云雾|薄雾|轻雾|白雾|烟岚)(左飘|左移|向左飘|向左流|向左飘动|向左飘去)",
            "(一缕|一抹)(薄雾|轻烟)向左飘",
        ),
        "birds": _sides("(飞鸟|群鸟|大雁|雁阵|白鹤|一行大雁)(左飞|向左飞|向左飞去|向左而去)"),
        "weather": {
            "rain": ("细雨(蒙蒙|纷纷|飘洒)", "烟雨蒙蒙", "雨丝(飘落|斜落)", "下着(小雨|细雨)"),
            "snowfall": ("雪花(飘落|飞舞|纷飞)", "(飞雪|小雪)飘落", "飞雪漫天", "下着小雪"),
            "petals": ("花瓣(飘落|飞舞|纷飞)", "落花(飘飞|纷纷)", "落英缤纷"),
        },
        "trees": {
            "pines": (f"(古松|松树|松林|老松){_SWAY}", "(古松|松林)迎风"),
            "bamboo": (f"(竹林|修竹|竹影){_SWAY}", "(竹林|修竹)迎风"),
        },
        "light": {
            "sun": ("一轮(红日|圆日)", "红日(高照|高悬|当空)", "太阳(高照|高悬|当空)"),
            "moon": ("一轮(明月|圆月|皓月)", "明月(高照|高悬|当空)", "月亮(高悬|当空)"),
        },
        "waterfall": {True: ("一(道|挂)(瀑布|飞瀑)", "(瀑布|飞瀑)(直下|垂落)", "瀑布飞泻", "飞流直下")},
        "pavilion": {True: ("一座(小亭|凉亭|亭子)", "山间(小亭|凉亭)", "(小亭|孤亭)(静立|独立)", "(一角|半山)小亭")},
    },
    heads=(
        "{palette_title}山水，{layers}",
        "一幅{palette_title}山水，{layers}",
        "{palette_title}山水画，{layers}",
        "{layers}，{palette_title}山水",
        "{layers}，{palette}",
        "{palette}，{layers}",
        "{layers}",
        "{palette}",
        "{palette_title}山水",
        "一幅{palette_title}山水",
        "",
    ),
    group_sizes=(2, 3, 4),
    place="{water}{boat}",
    comma="，",
    last=("，",),
    links=("，",),
    stop="。",
    having=("，但见", "，只见"),
    limit=70,
)

PHRASEBOOKS = {"en": ENGLISH, "zh": CHINESE}
