//! Answers of the database, remembered for those who ask the same, as long as what they rest on is the same.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) struct Memo<Question, Basis, Answer: ?Sized> {
    /// When there are more, all are forgotten. How large one may be is up to whoever remembers it: questions are clients' texts.
    most: usize,
    known: Mutex<HashMap<Question, Known<Basis, Answer>>>,
}

struct Known<Basis, Answer: ?Sized> {
    /// What was known of the tables and the rights. When it is something else by now, the answer does not count.
    basis: Arc<Basis>,
    answer: Arc<Answer>,
}

impl<Question: Eq + Hash, Basis, Answer: ?Sized> Memo<Question, Basis, Answer> {
    pub(crate) fn new(most: usize) -> Memo<Question, Basis, Answer> {
        Memo {
            most,
            known: Mutex::default(),
        }
    }

    pub(crate) fn recall(&self, question: &Question, basis: &Arc<Basis>) -> Option<Arc<Answer>> {
        let known = self.known();
        let known = known.get(question)?;
        Arc::ptr_eq(&known.basis, basis).then(|| known.answer.clone())
    }

    pub(crate) fn remember(&self, question: Question, basis: &Arc<Basis>, answer: &Arc<Answer>) {
        let mut known = self.known();
        if known.len() >= self.most {
            known.clear();
        }
        let answer = Known {
            basis: basis.clone(),
            answer: answer.clone(),
        };
        known.insert(question, answer);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Question, Known<Basis, Answer>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_the_same_question_on_the_same_basis_and_there_are_not_too_many() {
        // Equal, and not the same.
        let (before, after) = (Arc::new(()), Arc::new(()));
        let memo: Memo<u32, (), str> = Memo::new(2);
        memo.remember(1, &before, &"one".into());
        assert_eq!(memo.recall(&1, &before).as_deref(), Some("one"));
        assert_eq!(memo.recall(&1, &after), None);
        assert_eq!(memo.recall(&2, &before), None);

        memo.remember(2, &before, &"two".into());
        memo.remember(3, &before, &"three".into());
        assert_eq!(memo.recall(&1, &before), None);
        assert_eq!(memo.recall(&3, &before).as_deref(), Some("three"));
    }
}
