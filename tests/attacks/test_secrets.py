"""Keys are known to the program and to nobody else: not to models, journal, logs, results or errors."""

import base64
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from master_agent.cli.keys import secrets_of
from master_agent.held_keys import in_variable, is_named, open_part, without_keys
from master_agent.secrets import Secrets
from master_agent.settings import Settings
from tests.attacks.canary import Canary
from tests.conftest import Cli, calls, plans, says
from tests.servers.chat import ChatServer, call, error, reply
from tests.servers.loopback import Behaviour, Body
from tests.terminal import AtTerminal

# The keys have no shape that anybody knows: only by their values can they be told from other words.
KEY, TOKEN, OTHER = (
    Canary("canary-Fq7ZpT2mWx4LrK9s"),
    Canary("canary-Hd5VbN8cYj3QgE6a"),
    Canary("canary-Uw1XoS4tRi7MzB2k"),
)
PLAIN = Canary("common-Jk8PvC5nGy2DfA9x")  # no key: shows that the search would find one


def notes(canary: Canary) -> str:
    """A file that tells it in every way that a tool's output can."""
    value = canary.value
    coded = base64.b64encode(f"the key is {value}!".encode()).decode()
    return "\n".join(
        [
            f"KEY={value}",
            f"{value[:9]}\n  {value[9:15]}\n{value[15:]}",
            json.dumps([value[:11], value[11:]]),
            repr(f"{value[:8]}\n{value[8:]}"),
            *(coded[at : at + 12] for at in range(0, len(coded), 12)),
            value.encode().hex(),
        ]
    )


def brain(body: Body) -> Behaviour:
    """A model that reads the file, looks for one that is named like it, and repeats all that it was told."""
    told = json.dumps(body["messages"])
    if '"role": "tool"' not in told:
        return reply(
            calls=[
                call("read_file", {"path": "notes.txt"}, "c1"),
                call("read_file", {"path": "notes.txt", "start_line": 3, "lines": 1}, "c2"),
                call("list_files", {}, "c5"),
                call("download_image", {"url": f"http://127.0.0.1:9/{PLAIN.value}"}, "c3"),
                call("write_file", {"path": "made.txt", "content": "x", "overwrite": True, "last": False}, "c4"),
            ]
        )
    return reply(told)


def run(cli: Cli, server: ChatServer, *flags: str) -> dict[str, str | bytes]:
    """What a run that works with the file has put out, everywhere."""
    outputs: dict[str, str | bytes] = {}
    for form in ("--json", "--verbose"):
        ran = cli(
            *("agents", "run", "file", "Read notes.txt", form, "--log-file", str(cli.home / "run.log"), *flags),
            env={"OPENAI_BASE_URL": server.base_url, "MASTER_AGENT_MODEL": "m", "SOME_API_KEY": OTHER.value},
        )
        assert ran.code == 0, ran.err
        outputs |= {f"stdout of {form}": ran.out, f"stderr of {form}": ran.err}
    shown = cli("show", "--events")
    return {**outputs, "show": shown.out, "requests": b"".join(request.raw for request in server.requests)}


def test_a_key_that_a_file_holds_reaches_no_model_no_journal_no_log_and_no_output(cli: Cli) -> None:
    cli.file(".env", f"REPLICATE_API_TOKEN={TOKEN.value}\n")
    cli.variables["OPENAI_API_KEY"] = KEY.value
    written = cli.file("notes.txt", "\n\n".join(notes(canary) for canary in (PLAIN, KEY, TOKEN, OTHER)))
    named = cli.file(f"{KEY.value}.txt", "x")

    with ChatServer(brain) as server:
        outputs = run(cli, server)
        authorized = {request.headers.get("authorization") for request in server.requests}

    planted = (written, named, cli.folder / ".env")
    kept = [*(cli.home / "state").glob("journal.db*"), cli.home / "run.log"]
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}
    seen = PLAIN.found(outputs, cli.folder, cli.home, but=planted)
    assert authorized == {f"Bearer {KEY.value}"}
    assert {"stdout of --json", "show", "requests", str(cli.home / "run.log")} <= set(seen)
    assert any("journal.db" in place for place in seen)
    for canary in (KEY, TOKEN, OTHER):
        assert canary.found(outputs, cli.folder, cli.home, but=planted) == []


@pytest.mark.parametrize("where", ["the task", "the parameter key", "the file notes.txt"])
def test_a_key_that_is_given_with_a_run_is_refused_by_its_name(cli: Cli, where: str) -> None:
    cli.variables["REPLICATE_API_TOKEN"] = KEY.value
    cli.file("notes.txt", f"the key: {base64.b64encode(KEY.value.encode()).decode()}")
    task = f"Use {KEY.value}" if where == "the task" else "Use ${params.key}"
    given = {"the task": [], "the parameter key": [f"--param=key={KEY.value}"], "the file notes.txt": ["-fnotes.txt"]}

    with ChatServer([reply("x")]) as server:
        ran = cli(task, *given[where], "--yes", "--json", "--openai-base-url", server.base_url, "--model=m")

    assert (ran.code, ran.json["error"]["type"], server.count) == (2, "usage", 0)
    assert f"{where} holds the value of REPLICATE_API_TOKEN" in ran.err
    assert KEY.found({"out": ran.out, "err": ran.err}, cli.home) == []


def test_a_plan_that_holds_a_key_is_refused(cli: Cli) -> None:
    plan = cli.plan({"agent": "code", "prompt": f"Use {KEY.value[:9]}\n{KEY.value[9:]}"})

    for command in (("run", plan, cli.script(), "--json"), ("check", plan, "--json"), ("check", plan)):
        ran = cli(*command, env={"OPENAI_API_KEY": KEY.value})

        assert (ran.code, "the plan holds the value of OPENAI_API_KEY" in ran.err) == (2, True), command
        assert KEY.found({"out": ran.out, "err": ran.err}, cli.home / "state") == []


def test_a_key_that_is_typed_into_the_plan_at_the_question_is_refused_and_the_draft_is_kept(cli: Cli) -> None:
    editor = cli.home / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        f"key, text = {KEY.value!r}, path.read_text()\n"
        "path.write_text(text.replace(key, 'twice') if key in text else text.replace('Say it.', 'Say it ' + key))\n"
    )
    script = cli.script(plans({"agent": "code", "prompt": "Say it."}), says("Done."))
    cli.variables["OPENAI_API_KEY"] = KEY.value
    terminal = AtTerminal(cli, "Speak", script, "--model=m", EDITOR=f"{sys.executable} {editor}")

    terminal.answer("Run it.*: ", "e\n")
    terminal.child.expect("the edited plan holds the value of OPENAI_API_KEY")
    terminal.child.expect("opens what you wrote")
    terminal.answer("Run it.*: ", "e\n")
    terminal.answer("Run it.*: ", "y\n")
    code, shown = terminal.end()

    assert code == 0, shown
    assert "Say it twice" in cli("show", "--events").out
    assert KEY.found({"shown": shown}, cli.home / "state") == []


def test_what_a_model_was_not_shown_is_not_lost_when_it_writes_back_what_it_read(cli: Cli) -> None:
    cli.file(".env", f"SHOP_TOKEN={TOKEN.value}\n")
    written = cli.file("shop.conf", f"token: {TOKEN.value}\nname: shop\n")
    back = {"path": "shop.conf", "content": "token: (secret)\nname: my shop\n", "overwrite": True}
    script = cli.script(
        calls(("read_file", {"path": "shop.conf"})), calls(("write_file", back)), says("It is refused.")
    )

    ran = cli("agents", "run", "file", "Rename the shop", "--events", script)

    assert written.read_text() == f"token: {TOKEN.value}\nname: shop\n"
    returned = [event for event in ran.events if event["type"] == "tool_returned"]
    assert returned[0]["text"] == "token: (secret)\nname: shop\n"
    assert '"shop.conf" holds something that you were not shown' in returned[1]["text"]
    assert (ran.code, returned[1]["artifacts"]) == (1, []), ran.out


def test_a_key_of_another_program_in_the_folders_env_is_cut_too_and_one_that_gives_way_to_yours(cli: Cli) -> None:
    database = f"postgres://me:{OTHER.value}@127.0.0.1/db"
    env = cli.file(".env", f"PAYMENT_TOKEN={TOKEN.value}\nDATABASE_URL={database}\nOPENAI_API_KEY={KEY.value}\n")
    cli.variables["OPENAI_API_KEY"] = "the key of the user's own"
    written = cli.file("notes.txt", "\n".join(canary.value for canary in (TOKEN, OTHER, KEY, PLAIN)))
    script = cli.script(calls(("read_file", {"path": "notes.txt"})), says("Done."))

    ran = cli("agents", "run", "file", "Read notes.txt", "--json", script)

    assert ran.code == 0, ran.err
    outputs = {"show": cli("show", "--events").out}
    assert PLAIN.found(outputs)
    for canary in (KEY, TOKEN, OTHER):
        assert canary.found(outputs, cli.folder, cli.home, but=(written, env)) == []


def test_the_env_of_a_workspace_elsewhere_is_known_and_sets_nothing(cli: Cli, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    lines = [
        f"SHOP_TOKEN={KEY.value}",
        f"MACHINE='{TOKEN.value}'",
        "MASTER_AGENT_MODEL=unasked",
        "TITLE='an ordinary sentence'",
        f"export BROKEN_KEY='{OTHER.value}",
    ]
    (there / ".env").write_text("\n".join(lines))
    written = there / "notes.txt"
    written.write_text("\n".join([*(canary.value for canary in (KEY, TOKEN, OTHER, PLAIN)), "an ordinary sentence"]))
    script = cli.script(calls(("read_file", {"path": "notes.txt"})), says("Done."))
    command = ("agents", "run", "file", "Read notes.txt", script, "--workspace", "../there")

    ran = cli(*command, "--json")
    verbose = cli(*command, "--verbose")

    assert ran.code == 0, ran.err
    outputs = {
        "show": cli("show", "--events").out,
        "out": ran.out,
        "err": ran.err,
        "verbose": verbose.err + verbose.out,
    }
    assert "an ordinary sentence" in outputs["show"] and PLAIN.found(outputs)
    assert "unasked" not in "".join(outputs.values()) and "notice" not in ran.err
    for canary in (KEY, TOKEN, OTHER):
        assert canary.found(outputs, cli.folder, cli.home, there, but=(written, there / ".env")) == []


def test_no_odd_env_and_no_odd_variable_stops_a_run(cli: Cli) -> None:
    plan = cli.plan({"tool": "list_files"})
    contents = {"loop": None, "pipe": None, "bytes": b"A_KEY=\xff\xfe\0", "quotes": b"A='\n" * 50_000}
    for name, content in contents.items():
        env = cli.file(f"{name}/.env", content or "")
        if content is None:
            env.unlink()
    (cli.folder / "loop/.env").symlink_to(".env")
    os.mkfifo(cli.folder / "pipe/.env")

    assert {name: cli("run", plan, "--workspace", name).code for name in contents} == dict.fromkeys(contents, 0)
    assert cli("run", plan, env={"ODD_TOKEN": "\udcff\udcfe-no-text-at-all"}).code == 0
    unnamed = cli("run", plan, "--workspace", "x" * 300)
    assert unnamed.code == 2 and "cannot be opened" in unnamed.err


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        (".env", "http://me:{key}@127.0.0.1:9/v1"),
        (".env", "http://{key}@127.0.0.1:9/v1"),
        (".env", "http://127.0.0.1:9/v1?api-version=2026-10-01&api_key={key}"),
        (".env", "http://127.0.0.1:9/{key}/v1"),
        ("flag", "http://{key}:x-oauth-basic@127.0.0.1:9/v1"),
        ("flag", "http://127.0.0.1:9/v1?q={key}"),
    ],
)
def test_a_key_in_the_address_of_a_server_is_told_to_nobody(cli: Cli, origin: str, address: str) -> None:
    named, flags = address.format(key=KEY.value), ["--model=m", "--wire=chat", "--attempts=1"]
    env = cli.file(".env", f"OPENAI_BASE_URL={named}\n" if origin == ".env" else "")
    flags += [f"--openai-base-url={named}"] if origin == "flag" else []
    written = cli.file("notes.txt", f"{KEY.value} {PLAIN.value}")
    read = {"tool": "read_file", "with": {"path": "notes.txt"}}

    log = ("--log-file", str(cli.home / "run.log"))  # which has every event
    ran = cli("run", cli.plan(read, {"agent": "code", "prompt": "x"}), "--verbose", *log, *flags)

    assert ran.code == 3, ran.err
    outputs = {"out": ran.out, "err": ran.err}
    assert len(PLAIN.found(outputs, cli.home)) >= 3 and "no connection" in ran.err
    assert KEY.found(outputs, cli.folder, cli.home, but=(written, env)) == []


KEYS = [  # a variable of a .env, its value, and what of it is cut out of all that is read
    ("TITLE", "an ordinary sentence", None),
    ("GREETING_KEY", "an ordinary sentence", None),
    ("SITE_PASSWORD", "an ordinary sentence", "an ordinary sentence"),
    ("DBPASS", "hunter2hunter2", "hunter2hunter2"),
    ("API_KEY_2", "abcdefghijkl", "abcdefghijkl"),
    ("STRIPE_SECRET_PROD", "abcdefghijkl", "abcdefghijkl"),
    ("MYSQL_PWD", "abcdefghijkl", "abcdefghijkl"),
    ("GITHUB_PAT", "abcdefghijkl", "abcdefghijkl"),
    ("OLDPWD", "/home/me/abcdefghijkl", None),
    ("GIT_ASKPASS", "/usr/bin/ksshaskpass", None),
    ("SSH_KEY", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk1 me@host", "AAAAC3NzaC1lZDI1NTE5AAAAIGk1"),
    ("STUFF", "9f86d081884c7d659a2feaa0c55ad015", "9f86d081884c7d659a2feaa0c55ad015"),
    ("GIT_SHA", "9f86d081884c7d659a2feaa0c55ad015", None),
    ("STUFF", "m3Jv/8kq+Zt4Wn1pL0aXcYbRfGhIjKlMnOpQrStUvWx=", "m3Jv/8kq+Zt4Wn1pL0aXcYbRfGhIjKlMnOpQrStUvWx"),
    ("MODEL", "claude-sonnet-4-5-20250929", None),
    ("FOLDER", "/home/me/project-2024/data2/final", None),
    ("TENANT", "550e8400-e29b-41d4-a716-446655440000", None),
    ("DATABASE", "postgres://me:pass%2Fword1@h/db", "pass/word1"),
    ("DATABASE", "postgres://postgres:postgres@h/db", None),
    ("SUDO_COMMAND", "/usr/bin/env PWD=/home/me/work", None),
    ("DATABASE", "Server=h;Database=products;Password=abcdefgh;", "abcdefgh"),
    ("HOOK", "https://hooks.example/services/T024/aB3dE5fG7hI9jK1lM3nO5pQ7", "aB3dE5fG7hI9jK1lM3nO5pQ7"),
    # Public values
    ("CONTRACT", "0x52908400098527886E0F7030069857D2E4169EE7", None),
    ("RUNNER", "ghcr.io/me/app@sha256:9f86d081884c7d659a2feaa0c55ad0159f86d081884c7d659a2feaa0c55ad015", None),
    ("MACHINE", "i-0a1b2c3d4e5f6a7b8,ami-0a1b2c3d4e5f6a7b8", None),
    ("BUILD_HASH", "9f86d081884c7d659a2feaa0c55ad015", None),
    ("S3_BUCKET", "builds-9f86d081884c7d659a2feaa0c55ad015", None),
    ("WALLET", f"0x{'9f86d081' * 8}", f"0x{'9f86d081' * 8}"),
    # Passwords in connection strings and addresses
    ("DB", "Server=db;User Id=sa;Password=Pa#ssw0rd-Very-Long;", "Pa#ssw0rd-Very-Long"),
    ("DB", "jdbc:sqlserver://h:1433;databaseName=x;user=sa;password=a b&c#d long;encrypt=true", "a b&c#d long"),
    ("DB", "Server=h;Password='it''s; a long one' ;Uid=x", "it's; a long one"),
    ("DB", "AccountName=x;AccountKey=/Ab3dE5gH7iJ9kL1==", "/Ab3dE5gH7iJ9kL1=="),
    ("DB", "BlobEndpoint=https://x.blob/;SharedAccessSignature=sv=2020&sig=abc123%2Bdef&se=1", "abc123+def"),
    ("DB", "Driver=x;Pwd={/a;long=one}", "/a;long=one"),
    ("DB", "host=h password='my pass word long'", "my pass word long"),
    ("DB", "host=h password=Pa#ss&word-1 user=me", "Pa#ss&word-1"),
    ("FORM", "grant=x&client_secret=abcdefgh&scope=all", "abcdefgh"),
    ("DB", "postgres://app:Pa#ssw0rd-long-one@db/app", "Pa#ssw0rd-long-one"),
    ("DB", "postgres://me:p@ss/word1234@db", "p@ss/word1234"),
    ("DB", "postgres://me:your-password-here@db", None),
    ("REGISTRY", "http://localhost:4873/@scope-of-mine/package", None),
    ("FEED", "https://h/x?sort_key=created_at_desc&code=authorization_code&sslkey=/home/me/client.key", None),
    ("FEED", "https://h/x?page_token=abcdefgh1", "abcdefgh1"),
    # What is no key by its value
    ("HOST_PWD", "/srv/mine/of-old", None),
    ("SSH_KEY", "/home/me/.ssh/id_ed25519", None),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/service-account.json", None),
    ("A_KEY", "/Ab3dE5gH7iJ9kL1/mN3oP5qR7sT9uV1wX3yZ5", "/Ab3dE5gH7iJ9kL1/mN3oP5qR7sT9uV1wX3yZ5"),
    ("API_KEY", "your-api-key-here", None),
    ("API_KEY", "sk-xxxxxxxxxxxxxxxx", None),
    ("API_KEY", "<put your key here>", None),
    ("OPENAI_API_KEY", "replace-with-your-key", None),
    # What is one by its name
    ("DB_PW", "a few plain words", "a few plain words"),
    ("WALLET_MNEMONIC", "witch collapse practice feed", "witch collapse practice feed"),
    ("AUTHORIZATION", "Bearer abcdefghijklmnop", "abcdefghijklmnop"),
    ("FIREBASE_CONFIG", '{"apiKey": "abcdefghijklm", "authDomain": "my-app.firebaseapp.example"}', "abcdefghijklm"),
    ("FIREBASE_CONFIG", '{"authDomain": "my-app.firebaseapp.example"}', None),
    ("CLUSTERS", '[{"urls": ["redis://me:abcdefghijklm@h"]}]', "abcdefghijklm"),
]
NAMED = """API_KEY_EU API_KEY_PRIMARY KEY_BACKUP STRIPE_KEY_US ENCRYPTION_KEY_V2 API_KEY_EU_2 API_KEYS2 TOKEN_PROD_2
    apiKey db.password X-Api-Key AWS_CREDS CREDENTIALS MY_PASSCODE BEARER AUTHORIZATION MYSQL_PWD DOCKER_AUTH"""
NOT_NAMED = """KEY_ID API_KEY_IDS TOKEN_URL SECRET_PATH KEY_FILE KEY_NAMES TOKEN_TYPE KEY_SIZE TOKEN_LENGTH SECRET_ARN
    PASSWORD_MIN_LENGTH GIT_CONFIG_KEY_0 GIT_ASKPASS SSH_AUTH_SOCK AUTH_DOMAIN PWD OLDPWD COMPASS KEYBOARD
    accessKeyName"""


@pytest.mark.parametrize(("name", "value", "cut"), KEYS, ids=[f"{name}={value}" for name, value, _ in KEYS])
def test_what_a_folders_env_holds_is_cut_where_its_name_or_shape_is_that_of_a_key(
    name: str, value: str, cut: str | None
) -> None:
    secrets = secrets_of(Settings(beside=((name, value),)), {})

    assert secrets.hide(f"<{cut or value}>") == (f"<{value}>" if cut is None else "<(secret)>")


def test_a_name_says_whether_it_holds_a_key_or_something_of_it() -> None:
    assert [name for name in NAMED.split() if not is_named(name)] == []
    assert [name for name in NOT_NAMED.split() if is_named(name)] == []
    environ = {"DB_PW": "x", "CONFIG": '{"apiKey": "abcdefghijklm"}', "URL": "redis://me:abcdefgh@h", "KEY_FILE": "/k"}
    assert without_keys(environ) == {"KEY_FILE": "/k"}


def test_of_an_address_only_the_open_part_is_shown() -> None:
    shown = {
        "postgres://app:Pa#ssw0rd-long-one@db/app": "postgres://db/app",
        "http://me:p@ss/word1234@db:80/v1?x=1": "http://db:80/v1",
        "http://me:#?ssword@db": "http://db",
        "me:p#ss@127.0.0.1:9": "127.0.0.1:9",
        "http://127.0.0.1:9/v1?q=a@b#c": "http://127.0.0.1:9/v1",
        "http://[::1]:9/@x/y": "http://[::1]:9/@x/y",
    }
    assert {address: open_part(address) for address in shown} == shown


@pytest.mark.parametrize(
    "value", ["me:{key}@127.0.0.1:9", "{key}", "http://{key}@127.0.0.1:nine/v1", "http://me:Pa#{key}@127.0.0.1:9/v1"]
)
def test_a_key_in_what_is_no_address_is_not_shown_with_the_fault(cli: Cli, value: str) -> None:
    for variable in ("OPENAI_BASE_URL", "REPLICATE_BASE_URL", "MASTER_AGENT_PROXY"):
        ran = cli("doctor", "--json", env={variable: value.format(key=KEY.value)})

        assert (ran.code, "is no address of a server" in ran.err) == (2, True)
        assert KEY.found({"out": ran.out, "err": ran.err}) == []


def test_a_server_that_repeats_the_key_of_its_address_tells_it_to_nobody(cli: Cli) -> None:
    with ChatServer([error(401, f"no user me:{KEY.value}, {PLAIN.value}")]) as server:
        cli.file(".env", f"OPENAI_BASE_URL={server.base_url.replace('//', f'//me:{KEY.value}@')}\n")
        ran = cli("run", cli.plan({"agent": "code", "prompt": "x"}), "--events", "--model=m", "--wire=chat")

    outputs = {"out": ran.out, "err": ran.err, "show": cli("show").out}
    assert ran.code == 4 and PLAIN.found(outputs)
    assert KEY.found(outputs, cli.home) == []


def test_a_flag_with_a_key_is_not_kept_with_the_run(cli: Cli) -> None:
    plan = cli.plan({"tool": "list_files"})

    servers = [f"http://me:{KEY.value}@127.0.0.1:9", f"{TOKEN.value}:@127.0.0.1:9", "127.0.0.1:9"]
    ran = cli("run", plan, "--events", *(f"--local-server={server}" for server in servers))
    addresses = (f"--proxy=http://{OTHER.value}@127.0.0.1:9", f"--replicate-base-url=http://me:80#{OTHER.value}@h")
    proxied = cli("run", plan, "--events", *addresses, "--local-server=127.0.0.1:9")

    assert (ran.code, proxied.code) == (0, 0), ran.err + proxied.err
    assert proxied.events[0]["flags"] == {"local_server": ["127.0.0.1:9"]}
    for canary in (KEY, TOKEN, OTHER):
        assert canary.found({"out": ran.out + ran.err, "proxied": proxied.out}, cli.home) == []


def test_a_key_of_several_words_or_with_space_around_it_is_found_however_it_is_broken() -> None:
    secrets = Secrets(["correct horse battery staple", "canary-Fq7ZpT2mWx4L \n", 'a", "b, "c', '", ", ", ", ", "'])

    listed = json.dumps(["correct", "horse", "battery", "staple"])
    for text in ("correct\nhorse battery\n  staple", listed, "canary-Fq7ZpT2mWx4L"):
        assert secrets.hide(f"<{text}>") in ("<(secret)>", '<["(secret)"]>'), text
    assert Secrets(["token-of-mine"]).hide("C:\\token-of-mine") == "C:\\(secret)"  # no tab and "oken"
    assert Secrets(["back\\new-slash"]).hide("<back\\new-slash>") == "<(secret)>"
    assert secrets.hide('a", "b, "c') == "(secret)" and secrets.hide("plain, words") == "plain, words"


def test_a_key_is_found_in_every_spelling_of_percent_signs() -> None:
    key = "p@ss Wörd/(1+2)"
    spelt = [quote(key), quote(key, safe=""), quote_plus(key), quote(key, safe="!~*'()")]
    small = [re.sub("%..", lambda sign: sign[0].lower(), text) for text in spelt]
    assert {Secrets([key]).hide(f"<{text}>") for text in (*spelt, *small)} == {"<(secret)>"}


def test_no_env_of_a_stranger_keeps_a_run_busy() -> None:
    long = 200_000
    texts = ["a." * long + " ://", "=" + "a" * long, "://" + "@:" * long, "KEY" + "_1" * long, "a1" * long + "="]
    texts += ["[" * long, '{"a":' * long, "a=';" * (long // 4), 'a="b" c;' * (long // 4), "your-" * (long // 4)]

    assert not is_named("KEY" + "_11" * long + "x")
    assert [list(in_variable("KEY_1", text)) is not None for text in texts] == [True] * len(texts)


def test_a_traceback_holds_no_key_and_steers_no_terminal(cli: Cli, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "platformdirs.py").write_text("import os\nraise RuntimeError('\\x1b[2J' + os.environ['OPENAI_API_KEY'])")
    paths = f"{broken}{os.pathsep}{cli.environ['PYTHONPATH']}"
    environ = {"PYTHONPATH": paths, "MASTER_AGENT_STATE_DIR": "", "OPENAI_API_KEY": KEY.value}

    for flags in ([], ["--json"]):
        ran = cli("agents", "run", "code", "x", "--debug", *flags, env=environ)

        assert ran.code == 70
        assert "RuntimeError" in ran.err and "\\x1b[2J(secret)" in ran.err and "\x1b" not in ran.err
        assert KEY.found({"out": ran.out, "err": ran.err}, cli.home) == []
