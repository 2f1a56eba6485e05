//! JSON as RFC 8259 has it, read by a second hand: whether a text is a value, and what a list or object consists of.
//!
//! Values stay text. Nothing is said about what numbers or lone surrogates mean, since programs differ there.

/// Whether the text is one JSON value, with white space around it or not.
pub fn is_value(text: &str) -> bool {
    let mut reader = Reader::new(text);
    reader.value().is_some() && reader.at_end()
}

/// The items of a list, each as its text; none if that is no list.
pub fn items(text: &str) -> Option<Vec<&str>> {
    let mut reader = Reader::new(text);
    let mut items = Vec::new();
    reader.list(|item| items.push(item))?;
    reader.at_end().then_some(items)
}

/// The members of an object, each name as its text with quotes; none if that is no object.
pub fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut reader = Reader::new(text);
    let mut members = Vec::new();
    reader.object(|name, value| members.push((name, value)))?;
    reader.at_end().then_some(members)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn at_end(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }

    /// One value, with the space before it left out of what is returned.
    fn value(&mut self) -> Option<&'a str> {
        self.space();
        let start = self.at;
        match self.peek()? {
            b'{' => self.object(|_, _| ())?,
            b'[' => self.list(|_| ())?,
            b'"' => self.string()?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'n' => self.word("null")?,
            _ => self.number()?,
        }
        Some(&self.text[start..self.at])
    }

    fn list(&mut self, mut item: impl FnMut(&'a str)) -> Option<()> {
        self.space();
        self.eat(b'[')?;
        self.space();
        if self.eat(b']').is_some() {
            return Some(());
        }
        loop {
            item(self.value()?);
            self.space();
            if self.eat(b',').is_none() {
                return self.eat(b']');
            }
        }
    }

    fn object(&mut self, mut member: impl FnMut(&'a str, &'a str)) -> Option<()> {
        self.space();
        self.eat(b'{')?;
        self.space();
        if self.eat(b'}').is_some() {
            return Some(());
        }
        loop {
            self.space();
            let start = self.at;
            self.string()?;
            let name = &self.text[start..self.at];
            self.space();
            self.eat(b':')?;
            let value = self.value()?;
            member(name, value);
            self.space();
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                0..=0x1f => return None,
                b'\\' => {
                    let escaped = self.peek()?;
                    self.at += 1;
                    match escaped {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            for _ in 0..4 {
                                self.peek().filter(u8::is_ascii_hexdigit)?;
                                self.at += 1;
                            }
                        }
                        _ => return None,
                    }
                }
                _ => {}
            }
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then_some(())?;
        self.at += word.len();
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if self.eat(b'e').or_else(|| self.eat(b'E')).is_some() {
            let _ = self.eat(b'+').or_else(|| self.eat(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        self.peek().filter(u8::is_ascii_digit)?;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Some(())
    }
}
