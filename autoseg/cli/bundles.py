"""The verbs for bundles that leave and arrive, and for what vouches for them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.cli.options import AsJson, Dataset, PlanName, Root, TaskPath
from autoseg.cli.run import default_bundle, root_folder, start
from autoseg.cli.screen import Screen

if TYPE_CHECKING:
    from autoseg.io.policy import Policy

BundleFolder = Annotated[Path | None, typer.Option("-b", "--bundle", help="Folder of a bundle, or the name of an imported one; "
                                                   "default: the dataset's own.")]
Trust = Annotated[list[Path] | None, typer.Option("--trust", help="A public key (.pub); the bundle must be signed by it, or by "
                                                  "another one that is named so.")]
# Where the administrator of a machine writes what nobody below may loosen.
SYSTEM_POLICY = Path("/etc/autoseg/policy.yaml")
# Below the root: bundles that came from elsewhere, which no training run overwrites.
IMPORTED = "imported"


def info(bundle: BundleFolder = None, dataset: Dataset = None, plan: PlanName = None, trust: Trust = None, root: Root = None,
         task: TaskPath = None, as_json: AsJson = False) -> None:
    """Show the model card of a bundle: what it is for, what it learned from, how well it does, its limits; and who signed it."""
    from autoseg.io.bundles import read_bundle

    screen = start("info", as_json)
    folder = bundle_folder(screen, bundle, root, dataset, plan, task)
    found = read_bundle(folder, policies(root, trust))
    screen.say(found.card)
    screen.say(f"bundle     {folder}\ndigest     {found.digest}\nsignature  {found.signed}")
    screen.finish(bundle=folder, digest=found.digest, signature=found.signed, card=found.card, members=found.members,
                  decisions=found.decisions)


def export(file: Annotated[Path, typer.Argument(help="The file to write; it ends in .autoseg.")], bundle: BundleFolder = None,
           dataset: Dataset = None, plan: PlanName = None,
           sign: Annotated[Path | None, typer.Option("--sign", help="A private key (autoseg keygen) to sign with.")] = None,
           root: Root = None, task: TaskPath = None, as_json: AsJson = False) -> None:
    """Write a bundle into one file. The same bundle gives the same bytes."""
    from autoseg.core.errors import UsageError
    from autoseg.io.atomic import sha256_file
    from autoseg.stages.exchange import run_export

    screen = start("export", as_json, root_folder(root))
    folder = bundle_folder(screen, bundle, root, dataset, plan, task)
    try:
        found = run_export(folder, file, key=sign)
    except UsageError as error:
        if error.code != "E_PASSPHRASE" or not sys.stdin.isatty():
            raise
        phrase = typer.prompt(f"passphrase of {sign}", hide_input=True, err=True)
        found = run_export(folder, file, key=sign, passphrase=phrase.encode())
    screen.made["archive"] = file
    digest = sha256_file(file)
    screen.say(f"{file}  {file.stat().st_size:,} bytes\nSHA-256    {digest}\nbundle     {found.digest}")
    screen.finish(file=file, sha256=digest, digest=found.digest)


def import_(file: Annotated[Path, typer.Argument(help="A file that autoseg export wrote.")],
            output: Annotated[Path | None, typer.Option("-o", "--output", help="The folder to make; default: "
                                                        "ROOT/imported/NAME, by the file's name.")] = None,
            trust: Trust = None, root: Root = None, as_json: AsJson = False) -> None:
    """Unpack a bundle that came as one file. Every digest is checked first; what is not sound leaves nothing behind."""
    from autoseg.core.errors import UsageError
    from autoseg.io.bundles import INDEX, read_bundle
    from autoseg.io.layouts import is_safe_id
    from autoseg.stages.exchange import run_import

    screen = start("import", as_json, root_folder(root))
    if output is None and not is_safe_id(file.stem):
        raise UsageError(f"a bundle cannot be called {file.stem!r}: letters, digits, '.', '_' and '-' only",
                         hint="name the folder with -o")
    target = output or root_folder(root) / IMPORTED / file.stem
    allowed = policies(root, trust)
    done = run_import(file, target, allowed)
    found = read_bundle(target, allowed) if done.was_there else done.bundle
    screen.made["bundle"] = target / INDEX
    screen.say(f"{found.spec.name}, plan {found.plan.name}: {len(found.members)} network(s)"
               f"{', which was here already' if done.was_there else ''}")
    screen.say(f"bundle     {target}\ndigest     {found.digest}\nsignature  {found.signed}\n\n"
               f"next: autoseg info -b {target}; autoseg predict -b {target} -i IMAGES -o OUT")
    screen.finish(bundle=target, digest=found.digest, signature=found.signed, was_there=done.was_there)


def keygen(file: Annotated[Path, typer.Argument(help="The private key to write; the public one is FILE.pub.")],
           as_json: AsJson = False) -> None:
    """Make a pair of keys: the private one signs bundles (export --sign), the public one is what others trust."""
    from autoseg.io.signatures import key_id, make_keys

    screen = start("keygen", as_json)
    public = file.with_name(file.name + ".pub")
    name = key_id(make_keys(file, public))
    screen.say(f"private    {file}, for autoseg export --sign; it has no passphrase, so keep it where only you can read it\n"
               f"public     {public}, for everyone: autoseg import --trust, or trusted_keys in a policy.yaml\nkey        {name}")
    screen.finish(private=file, public=public, key=name)


def verify(folder: Annotated[Path | None, typer.Argument(help="A folder with a manifest, a bundle or a log; default: the root "
                                                         "folder.")] = None,
           trust: Trust = None, root: Root = None, as_json: AsJson = False) -> int:
    """Check a folder against its manifest, a bundle against its digests and signature, and the chain of a log."""
    from autoseg.core.errors import UsageError
    from autoseg.io.audit import LOG, read_chain
    from autoseg.io.bundles import INDEX, read_bundle
    from autoseg.io.manifests import MANIFEST, changed_outputs

    screen = start("verify", as_json)
    place = folder or root_folder(root)
    facts: dict[str, str] = {}
    problems: list[str] = []
    if (place / INDEX).is_file():
        bundle = read_bundle(place, policies(root, trust))
        facts |= {"bundle": bundle.digest, "signature": bundle.signed}
    if (place / MANIFEST).is_file():
        changed, listed = changed_outputs(place)
        if not listed and not (place / INDEX).is_file():
            changed = [f"{INDEX} is missing, which lists the files of a bundle"]
        problems += changed
        facts[MANIFEST] = f"{len(changed)} file(s) changed or missing" if changed else "every file is as it was written"
    if (place / LOG).is_file():
        chain = read_chain(place / LOG)
        problems += [f"{LOG}: {problem}" for problem in chain.problems]
        facts[LOG] = f"{chain.lines} line(s), last digest {chain.head}"
    if not facts:
        found = f"holds no {INDEX}, {MANIFEST} or {LOG}" if place.exists() else "does not exist"
        raise UsageError(f"{place} {found}", hint="name a folder that autoseg wrote")
    for name, fact in facts.items():
        screen.say(f"{name:14} {fact}")
    for problem in problems:
        screen.say(f"PROBLEM        {problem}")
    code = 8 if problems else 0
    screen.finish("changed" if code else "ok", code, folder=place, found=facts, problems=problems)
    return code


VERBS = (info, export, import_, keygen, verify)


def bundle_folder(screen: Screen, bundle: Path | None, root: Path | None, dataset: str | None, plan: str | None,
                  task: str | None) -> Path:
    """The folder that `-b` means, else that of the dataset's bundle for the plan made last."""
    if bundle is None:
        return default_bundle(screen, root, dataset, plan, task)
    return named_bundle(bundle, root_folder(root))


def named_bundle(bundle: Path, root: Path) -> Path:
    """A folder as it is, or that of the imported bundle of this name."""
    imported = root / IMPORTED / bundle
    return imported if not bundle.exists() and bundle.name == str(bundle) and imported.is_dir() else bundle


def policies(root: Path | None, trust: list[Path] | None) -> list[Policy]:
    """Who may have made a bundle, by the machine's policy, the root folder's and the command line; all of them hold."""
    from autoseg.io.policy import POLICY, Policy, read_policy
    from autoseg.io.signatures import read_public_key

    found = [read_policy(path) for path in (SYSTEM_POLICY, root_folder(root) / POLICY) if _is_there(path)]
    return found + ([Policy("--trust", True, tuple(map(read_public_key, trust)))] if trust else [])


def _is_there(path: Path) -> bool:
    """Whether there is such a file, or something that cannot be looked at: a policy is never passed over."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
