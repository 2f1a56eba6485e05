//! What the benches measure works: each case a few times, with few people. So none of them rots unnoticed.

use std::collections::BTreeSet;

#[path = "../../benches/cases/mod.rs"]
#[expect(dead_code, reason = "what only measuring needs")]
mod cases;

#[test]
fn every_case_of_the_benches_does_what_it_says() {
    let mut names = BTreeSet::new();
    for case in cases::ALL {
        assert!(names.insert(case.name), "{} is there twice", case.name);
        case.try_out();
    }
}
