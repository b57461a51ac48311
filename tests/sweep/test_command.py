"""Values reach a command as they are, through a real shell; what cannot be quoted safely is refused."""

import random
import subprocess

import pytest

from plumbline.sweep.trial.command import filled_in, placeholders, plain

SIGNS = ["'", '"', "\\", "$", "`", "$(touch x)", "`id`", "${HOME}", "!", "*", "?", "~", "#", ";", "&", "|", ">", "\n"]
SIGNS += ["\t", " ", "  ", "-n", "%s", "{", "}", "{{", "é", "漢", "🙂", "\u202e", "\r", "a", "=", "A=1", "for", "((1))"]
COUNT, AT_ONCE = 10_000, 100


def hostile(number: int) -> list[str]:
    drawn = random.Random(number)
    return ["".join(drawn.choices(SIGNS, k=drawn.randrange(8))) for _ in range(AT_ONCE)]


def through_bash(command: str) -> list[str]:
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


def test_ten_thousand_hostile_values_arrive_unchanged_in_any_quotes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for quotes in ("", "'", '"'):
        words = " ".join(f"{quotes}{{v{number}}}{quotes}" for number in range(AT_ONCE))
        for number in range(COUNT // AT_ONCE):
            values = {f"v{place}": value for place, value in enumerate(hostile(number))}
            assert through_bash(filled_in(f"printf '%s\\0' {words}", values)) == list(values.values())
    assert list(tmp_path.iterdir()) == []


def test_text_around_a_value_stays_with_it_and_shell_syntax_beside_it_works():
    values = {"a": "x y", "n": 2}
    template = "V=1; printf '%s\\0' --a={a}/b pre'fix {a}'\" in {a}\" \"$V\" ${V} {{{n}}} | cat"
    assert through_bash(filled_in(template, values)) == ["--a=x y/b", "prefix x y in x y", "1", "1", "{2}"]


def test_a_number_before_a_redirection_names_no_stream():
    assert through_bash(filled_in("printf '%s\\0' {n}>&1", {"n": 2})) == ["2"]


def test_values_are_written_as_programs_read_them():
    assert [plain(value) for value in (True, False, 3, 0.001, 1e-05, "True")] == [
        "true", "false", "3", "0.001", "1e-05", "True",
    ]  # fmt: skip


def test_placeholders_are_those_of_python_and_not_the_shell_s_variables():
    assert placeholders("a {b} ${c} {{d}} '{e}' {b}") == ["b", "e"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("echo $(cat {a})", "a command substitution"),
        ("echo `cat {a}`", "a command substitution"),
        ('echo "$(cat {a})"', "a command substitution"),
        ("echo $(( {a} + 1 ))", "a command substitution"),
        ("(( {a} ))", "shell arithmetic"),
        ("cat <<E\n{a}\nE", "a here-document"),
        ("cat <<< {a}", "a here-document"),
        ("diff <(cat {a}) b", "a process substitution"),
        ("echo $'{a}'", "an ANSI-C string"),
        ("run # {a}", "a comment"),
        ("echo \\{a}", "a backslash stands before {a}"),
        ('echo "\\{a}"', "a backslash stands before {a}"),
        ("echo '{a}", "a quotation mark ' is never closed"),
        ("if [[ {a} -gt 3 ]]; then x; fi", "a shell condition"),
        ("echo a;# {a}", "a comment"),
        ('echo "${N:-"{a}"}"', "a parameter expansion"),
        ("echo ${A[{a}]}", "a parameter expansion"),
        ("A[{a}]=3", "a subscript"),
        ("echo $[ {a} ]", "shell arithmetic"),
        ("eval x {a}", "eval cannot be combined"),
        ("let x={a}", "let cannot be combined"),
    ],
)
def test_syntax_in_which_quoting_has_other_rules_is_refused(template, said):
    with pytest.raises(ValueError, match=said.replace("{", r"\{")):
        filled_in(template, {"a": "x"})


def test_the_same_signs_are_text_inside_quotes():
    template = "printf '%s\\0' '$(x) `y` # <<' \"# << ((\" a#b {a}#c"
    assert through_bash(filled_in(template, {"a": "v"})) == ["$(x) `y` # <<", "# << ((", "a#b", "v#c"]
