//! The users of stores in the catalogue: changed by compare-and-set, deleted with their store, and in each snapshot.

use super::*;
use crate::command::{Machine, NodeSpec};
use Outcome::{Done, Nothing, Refused};
use dkv_protocol::ids::NodeIndex;
use dkv_protocol::ranges::Replication;
use dkv_protocol::users::{UserLine, UsersRefusal};

fn id(store: u8) -> StoreId {
    StoreId(format!("{store:032x}"))
}

/// A new user.
fn set(store: u8, name: &str) -> Command {
    let line = Some(format!("user {name} on ~* +@all"));
    let given = vec![UserLine { name: name.into(), line: None }];
    let changes = vec![UserLine { name: name.into(), line }];
    Command::ChangeUsers { store: id(store), changes: UserChanges { given, changes } }
}

fn names(catalog: &Catalog, store: u8) -> Vec<&str> {
    catalog.users().get(&id(store)).into_iter().flat_map(Users::each).map(|(n, _)| n).collect()
}

#[test]
fn of_two_changes_of_the_same_user_one_is_refused() {
    let mut catalog = Catalog::default();
    assert_eq!(catalog.apply(&set(1, "ann")).outcome, Done);
    let late = catalog.apply(&set(1, "ann")).outcome;
    assert_eq!(late, Refused(Refusal::Users(UsersRefusal::Changed { version: 1 })));
    assert_eq!(catalog.apply(&set(1, "bob")).outcome, Done);
    let nothing = UserChanges { given: vec![], changes: vec![] };
    let nothing = Command::ChangeUsers { store: id(1), changes: nothing };
    assert_eq!(catalog.apply(&nothing).outcome, Nothing);
    assert_eq!((names(&catalog, 1), catalog.users()[&id(1)].version), (vec!["ann", "bob"], 2));
    // Those of another store are its own, and a change that is refused leaves none behind.
    assert_eq!(catalog.apply(&set(2, "eve")).outcome, Done);
    let given = vec![UserLine { name: "ann".into(), line: Some("user ann on".into()) }];
    let refused = UserChanges { given, changes: vec![] };
    let refused = Command::ChangeUsers { store: id(3), changes: refused };
    assert!(matches!(catalog.apply(&refused).outcome, Refused(_)));
    assert_eq!((names(&catalog, 1), names(&catalog, 2)), (vec!["ann", "bob"], vec!["eve"]));
    assert_eq!(catalog.stores_known(), 2);
}

#[test]
fn users_go_with_their_store_whether_it_has_copies_or_not() {
    let mut catalog = Catalog::default();
    let machine = Machine("10.0.0.1".into());
    let nodes = vec![NodeSpec { node: NodeIndex(0), shards: 1, machine }];
    let define = Command::DefineStore { store: id(1), replication: Replication::NONE, nodes };
    assert_eq!(catalog.apply(&define).outcome, Done);
    for store in [1, 2] {
        assert_eq!(catalog.apply(&set(store, "ann")).outcome, Done);
    }
    assert_eq!(catalog.stores_known(), 2);
    for store in [1, 2] {
        let forget = Command::ForgetStore { store: id(store) };
        assert_eq!(catalog.apply(&forget).outcome, Done);
        assert_eq!(catalog.apply(&forget).outcome, Nothing);
    }
    assert_eq!((catalog.users().len(), catalog.stores_known()), (0, 0));
}

#[test]
fn a_snapshot_holds_users_and_one_without_is_that_of_an_earlier_version() {
    let mut catalog = Catalog::default();
    assert_eq!(serde_json::to_string(&catalog).expect("plain data"), r#"{"stores":{}}"#);
    assert_eq!(catalog.apply(&set(1, "ann")).outcome, Done);
    let text = serde_json::to_string(&catalog).expect("plain data");
    assert_eq!(serde_json::from_str::<Catalog>(&text).expect("its own"), catalog);
    let older: Catalog = serde_json::from_str(r#"{"stores":{}}"#).expect("an earlier one");
    assert_eq!(older, Catalog::default());
}
