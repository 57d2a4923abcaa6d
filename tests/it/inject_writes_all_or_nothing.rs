//! `countersign inject` writes a stream whole or not at all: what is refused in one pod keeps back all of them, and what
//! asks in vain is told, not passed over.

use crate::support::manifests;

#[test]
fn the_command_writes_all_or_nothing() {
    let good = "apiVersion: v1\nkind: Pod\nmetadata: { name: good, annotations: { countersign.dev/inject: enabled } }\nspec: { containers: [{ name: a, image: a }] }\n";
    let set = ["--set", "keys=k", "--set", "client-id=c"];
    let said = manifests::inject(&set, good);
    assert!(
        said.code == 0 && said.out.contains("--client-id=c"),
        "{}",
        said.err
    );
    let bad = good
        .replace("good", "bad")
        .replace("containers:", "hostNetwork: true, containers:");
    let said = manifests::inject(&set, &format!("{good}---\n{bad}---\n{bad}"));
    assert_eq!((said.code, said.out.as_str()), (64, ""));
    assert_eq!(said.err.lines().count(), 2, "{}", said.err);
    assert!(
        said.err
            .starts_with("countersign: stdin:6: Pod bad: spec.hostNetwork: "),
        "{}",
        said.err
    );
    for (arguments, complaint) in [
        (&["--set", "keys"] as &[_], "write it like way-in=redirect"),
        (
            &["--set", "keyz=a", "--set", "way-in=b"],
            "--set keyz: there is none of this name; \"keys\" may be meant\ncountersign: --set way-in: \"b\" is none of",
        ),
        (&["--config", "/nonexistent"], "/nonexistent: No such file"),
        (&["/nonexistent"], "/nonexistent: No such file"),
    ] {
        let said = manifests::inject(arguments, good);
        assert_eq!((said.code, said.out.as_str()), (64, ""));
        assert!(said.err.contains(complaint), "{}", said.err);
    }
    // An annotation on the wrong object would be a sidecar that nobody misses.
    let misplaced = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a, annotations: { countersign.dev/inject: enabled } }\nspec: { template: { spec: { containers: [{ name: a }] } } }\n";
    let said = manifests::inject(&[], misplaced);
    assert_eq!(said.code, 64);
    assert_eq!(
        said.err,
        "countersign: stdin:1: Deployment a: countersign.dev/inject stands on the Deployment itself; it belongs into \
         spec.template.metadata.annotations\n"
    );
    let rollout = "apiVersion: argoproj.io/v1\nkind: Rollout\nmetadata: { name: a }\nspec: { template: { metadata: { annotations: { countersign.dev/inject: enabled } } } }\n";
    let said = manifests::inject(&[], rollout);
    assert_eq!((said.code, said.out.as_str()), (0, rollout));
    assert!(
        said.err.starts_with(
            "countersign: Rollout a: nothing is added: what pods it makes is not known here"
        ),
        "{}",
        said.err
    );
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: { name: a, labels: { countersign.dev/injection: enabled } }\n";
    let said = manifests::inject(&[], namespace);
    assert_eq!((said.code, said.out.as_str()), (0, namespace));
    assert_eq!(said.err, "", "a namespace asks for nothing");
}
