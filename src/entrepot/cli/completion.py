"""`entrepot completion SHELL`: the script that makes a shell complete commands and options (click makes it)."""

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_ENTREPOT_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash  entrepot completion bash > /etc/bash_completion.d/entrepot
    zsh   entrepot completion zsh > "${fpath[1]}/_entrepot"
    fish  entrepot completion fish > ~/.config/fish/completions/entrepot.fish
    """
    made = get_completion_class(shell)
    if made is None:  # the choice above keeps to what click has
        raise click.ClickException(f"there is no completion for {shell}")
    click.echo(made(context.find_root().command, {}, "entrepot", _VARIABLE).source())
