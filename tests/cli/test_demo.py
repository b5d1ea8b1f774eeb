"""`lyrics demo` without Gradio: its defaults, and what it says where Gradio is missing."""

import sys

import pytest

from lyrics_cli.main import build_parser, main


def test_the_page_is_for_this_machine_alone_unless_said():
    parsed = build_parser().parse_args(["demo"])
    assert (parsed.host, parsed.port, parsed.share) == ("127.0.0.1", 7860, False)


def test_a_missing_gradio_is_told_before_a_model_is_loaded(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", "--model", "/no/such/place"]) == 2
    error = capsys.readouterr().err
    assert error == "lyrics demo: error: This needs gradio: pip install 'ziya-lyrics[demo]'.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--port", "70000"], "must lie in [0, 65535]"), (["--port", "http"], "must be a whole number")],
)
def test_wrong_arguments(capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(["demo", *arguments])
    assert message in capsys.readouterr().err


def test_options_of_answers_are_checked_first(capsys):
    assert main(["demo", "--top-p", "0.5"]) == 2
    assert "--top-p 0.5 needs a --temperature above 0" in capsys.readouterr().err
