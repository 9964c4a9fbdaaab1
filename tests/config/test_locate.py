import string
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.config.locate import KeyPath, line_of, locate

DOCUMENT = '''\
# [not.a.table]
top = 1
[listen]   # comment = 1
address = [
    "0.0.0.0", # ] = "
    '::',
]
https = 443

dns.deep.er = 5
text = """
inside = 1
[neither]
"quoted\\"""" # end
raw = \'\'\'
x = 'y\'\'\'\'
[ registries . "quay.io" ]
credentials = { username = "a = b", password_file = "}" }
"quoted \\u006bey" = 2
'lit.eral' = 3
[[mirror]]
image = "a"
[mirror.filter]
tags = 1
[[mirror]]
image = "b"
[mirror.filter]
tags = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("listen",), 3),
        (("listen", "address"), 4),
        (("listen", "address", 1), 4),
        (("listen", "https"), 8),
        (("listen", "dns", "deep", "er"), 10),
        (("listen", "dns"), 10),
        (("listen", "text"), 11),
        (("listen", "raw"), 15),
        (("registries", "quay.io"), 17),
        (("registries", "quay.io", "credentials", "username"), 18),
        (("registries", "quay.io", "quoted key"), 19),
        (("registries", "quay.io", "lit.eral"), 20),
        (("mirror", 0, "image"), 22),
        (("mirror", 0, "filter", "tags"), 24),
        (("mirror", 1), 25),
        (("mirror", 1, "image"), 26),
        (("mirror", 1, "filter", "tags"), 28),
        (("unheard", "of"), 1),
    ],
)
def test_lines(path: KeyPath, line: int) -> None:
    tomllib.loads(DOCUMENT)  # the document is one
    assert line_of(locate(DOCUMENT), path) == line


def test_windows_line_ends() -> None:
    assert line_of(locate("a = 1\r\n[b]\r\nc = 2\r\n"), ("b", "c")) == 3


@given(st.text() | st.text("[]{}=.\"'#\\\n ab"))
def test_any_text_is_survived(text: str) -> None:
    lines = text.count("\n") + 1
    assert all(1 <= line <= lines for line in locate(text).values())


_KEYS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=6)
_VALUES = st.sampled_from(
    ['"#"', "'\"'", "1", '"""\n[x]\n"""', "[\n1, # ]\n2]", "{a = '}'}", "1979-05-27", "'''\n='''"]
)


@given(st.dictionaries(_KEYS, st.dictionaries(_KEYS, _VALUES, max_size=4), max_size=4))
def test_every_key_of_a_document_is_found_on_its_line(tables: dict[str, dict[str, str]]) -> None:
    text = ""
    expected: dict[KeyPath, int] = {}
    for table, keys in tables.items():
        expected[table,] = text.count("\n") + 1
        text += f"[{table}]\n"
        for key, value in keys.items():
            expected[table, key] = text.count("\n") + 1
            text += f"{key} = {value}\n"
    tomllib.loads(text)
    assert locate(text) == expected
