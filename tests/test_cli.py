import sys

import pytest
import typer

from plumbline import cli
from plumbline.lr_sweep import commands


def test_a_command_in_a_studys_app_is_a_command_of_plumbline(monkeypatch, capsys):
    study = typer.Typer()

    @study.command()
    def serve(port: int) -> None:
        typer.echo(f"listening on {port}")

    monkeypatch.setattr(commands, "app", study, raising=False)
    monkeypatch.setattr(cli, "app", typer.Typer())
    monkeypatch.setattr(sys, "argv", ["plumbline", "serve", "5000"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().out) == (0, "listening on 5000\n")
