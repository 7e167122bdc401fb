"""Completion in bash of words that bash takes for several, such as ``--set delivery.mode=exactly_once``.

Bash ends words at ``=`` and ``:`` too, hands over the pieces, and replaces the last piece only. So the whole line is
read here, as bash would run it, and of an answer is given back what comes after the pieces before.
"""

from __future__ import annotations

import os
from typing import ClassVar

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

_SCRIPT = """\
%(complete_func)s() {
    local kind value piece=${COMP_WORDS[COMP_CWORD]}
    case $piece in [=:]) piece= ;; esac
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
            *)
                case $value in *[=.]) compopt -o nospace ;; esac
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_PIECE=$piece %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -F %(complete_func)s %(prog_name)s
"""


class WholeWordBash(BashComplete):
    """As ``BashComplete``, with words as the shell runs them."""

    source_template: ClassVar[str] = _SCRIPT
    _kept = 0
    """Characters of the word that bash keeps, since it takes them for words of their own."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The finished arguments, and the one under the cursor."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        self._kept = max(0, len(incomplete) - len(os.environ.get("COMP_PIECE", "")))
        return words, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Its kind, and what bash is to put in place of the last piece."""
        return f"{item.type},{item.value[self._kept :]}"


add_completion_class(WholeWordBash)
