"""The literal table of checks, from which `docs/check.md` is made.

Sources: what tritonserver 2.51 was seen to do, case by case, and its source code, which had not changed
there by mid-2026; Triton's model repository and model configuration documentation.
"""

from __future__ import annotations

from jettison.triton.check import config_rules, fleet_rules, plan_rules, repository_rules, signature_rules
from jettison.triton.check.finding import Check

CHECKS: tuple[Check, ...] = (
    Check(
        code="R001",
        title="only models in the root",
        reason="every folder is a model to Triton, hidden ones too: it ends with 'failed to load all models'",
        fix="Move it out of the repository; stage beside the root, on the same file system",
        find=repository_rules.stray_folders,
    ),
    Check(
        code="R002",
        title="no scratch names that begin with a digit",
        reason="a version is read from the digits in front: `3.tmp` is version 3, and hangs the model",
        fix="Move it out of the model's folder",
        find=repository_rules.scratch_versions,
    ),
    Check(
        code="R003",
        title="the folder's name is the model's",
        reason="Triton drops a model whose configuration bears another name",
        fix="Correct `name`, or leave it out; rename a folder whose name Triton cannot take",
        find=repository_rules.names,
    ),
    Check(
        code="R004",
        title="versions that the policy names are there",
        reason="of `specific: [2, 7]` with 7 missing it loads 2, and answers 200",
        fix="Publish the version, or take its number out of version_policy",
        find=repository_rules.missing_versions,
    ),
    Check(
        code="R005",
        title="files are as they were published",
        reason="a file that is replaced in place is loaded or not as its times have it; caches stay stale",
        fix="Publish the new file as a version of its own: jettison publish",
        find=repository_rules.changed_files,
    ),
    Check(
        code="R006",
        title="no files beside config.pbtxt",
        reason="any other file there makes each edit of the configuration reload all versions",
        fix="Move it out, or into a version",
        find=repository_rules.stray_files,
    ),
    Check(
        code="R007",
        title="files that versions are loaded from are there",
        reason="the version fails to load, and with it all others of the model",
        fix="Put the file into the version, or correct default_model_filename and cc_model_filenames",
        find=repository_rules.missing_files,
    ),
    Check(
        code="C100",
        title="a configuration that can be read",
        reason="without one Triton guesses (it raises a batch size of 0 in silence), or refuses the model",
        fix="Write a complete config.pbtxt: jettison publish does",
        find=config_rules.unreadable,
    ),
    Check(
        code="C101",
        title="dims as in the graph",
        reason="the model fails to load; with max_batch_size above 0 the batch axis is not part of dims",
        fix="Correct dims; a model of a fixed batch needs max_batch_size 0",
        find=config_rules.shapes,
    ),
    Check(
        code="C102",
        title="all inputs and outputs, under their types",
        reason="the model fails to load, or an output cannot be asked for",
        fix="Correct names and types, and name all of them",
        find=config_rules.signatures,
    ),
    Check(
        code="C103",
        title="batch sizes that can be",
        reason="the model fails to load",
        fix="Correct max_batch_size or preferred_batch_size",
        find=config_rules.batch_sizes,
    ),
    Check(
        code="C104",
        title="profiles that are used",
        reason="only plans have profiles, and they are named by their number",
        fix="Leave `profile` out, or give the numbers of the plan's profiles",
        find=config_rules.profiles,
    ),
    Check(
        code="C105",
        title="a cache only where answers repeat",
        reason="the cache keys on model, version and input, and would answer for a router or a sequence",
        fix="Take response_cache out",
        find=config_rules.caches,
    ),
    Check(
        code="C106",
        title="files that ONNX Runtime reads",
        reason="the version fails to load, and with it all others of the model",
        fix="Export or copy the model again",
        find=config_rules.broken_files,
    ),
    Check(
        code="C107",
        title="types that requests carry",
        reason="Triton carries no FP8 or INT4, and BF16 only for plans",
        fix="Cast it to float16 or float32 inside the graph",
        find=config_rules.carried_types,
    ),
    Check(
        code="C108",
        title="ensembles with all of their steps",
        reason="an ensemble without one of its models is not loaded",
        fix="Publish the model, or correct model_name",
        find=config_rules.ensemble_steps,
    ),
    Check(
        code="A401",
        title="variants that clients cannot tell apart",
        reason="a router answers from either model: others than these break half of the clients",
        fix="Publish variants of one model: with the same inputs, outputs and max_batch_size",
        find=config_rules.variants,
    ),
    Check(
        code="P201",
        title="plans of the TensorRT that serves them",
        reason="TensorRT reads plans of its own version only; give `tensorrt` of each machine in the fleet",
        fix="Build the plan in the image that serves it: jettison build --image TAG",
        find=plan_rules.other_versions,
    ),
    Check(
        code="P202",
        title="a plan for each GPU of the fleet",
        reason="where cc_model_filenames has no key for a GPU, Triton takes the default plan in silence",
        fix="Build the plan for that compute capability, and name it in cc_model_filenames",
        find=plan_rules.missing_plans,
    ),
    Check(
        code="P206",
        title="plans under the GPU that they were built for",
        reason="the version fails to load there, and a plan that fails to load leaks memory of the GPU",
        fix="Name the plan of that compute capability in cc_model_filenames, or build it",
        find=plan_rules.misnamed_plans,
    ),
    Check(
        code="G302",
        title="memory for a change without a gap",
        reason="loading over a loaded model holds both at once",
        fix="Serve fewer models there, or smaller ones, or plan an outage for the change",
        find=fleet_rules.memory,
    ),
    Check(
        code="S501",
        title="a repository that only its owner writes",
        reason="who can write into a repository runs code in the server",
        fix="Take the right away: chmod -R o-w",
        find=fleet_rules.writable,
    ),
    Check(
        code="S502",
        title="no programs where none are run",
        reason="a library or script in a version folder is loaded by whoever finds a way",
        fix="Remove it, and find out who put it there",
        find=fleet_rules.code,
    ),
    Check(
        code="S503",
        title="images without known holes",
        reason="images before 25.07 can be taken over by whoever reaches their port",
        fix="Run 26.07 or newer where the machine allows",
        find=fleet_rules.old_images,
    ),
    Check(
        code="P203",
        title="servers that take version compatible plans",
        reason="such a plan brings code of its own, and fails to load unless the server was told to run that",
        fix="If you trust the plan, start that server with --backend-config=tensorrt,version-compatible=true "
        "and say version_compatible: true in the fleet; or build the plan for its TensorRT alone",
        find=plan_rules.unallowed_plans,
    ),
    Check(
        code="V701",
        title="all versions are signed",
        reason="who can write into the repository can put a version there",
        fix="Publish it with --sign KEY, or take it out",
        find=signature_rules.unsigned,
    ),
    Check(
        code="V702",
        title="signatures are by this key, over this manifest",
        reason="another key, a manifest that was edited, or a version that was moved proves nothing",
        fix="Find out who changed it; publish it again with --sign KEY",
        find=signature_rules.forged,
    ),
    Check(
        code="V703",
        title="signed files have the bytes that were signed",
        reason="the server would serve what nobody signed",
        fix="Find out who changed it; publish the version again",
        find=signature_rules.changed,
    ),
    Check(
        code="V704",
        title="no files beside the signed ones",
        reason="a file that nobody signed can be served, or run, in the name of a signed version",
        fix="Remove it, and find out who put it there",
        find=signature_rules.added,
    ),
    Check(
        code="V705",
        title="config.pbtxt says what was signed",
        reason="it decides which file is served, and can run code; only the list of versions may change",
        fix="Find out who changed it; publish the version again with --sign KEY",
        find=signature_rules.configurations,
    ),
)
