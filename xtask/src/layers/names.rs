//! Reads the names in a Rust file from its tokens: imports, paths and macros. Items under `#[cfg(test)]` are skipped.

use proc_macro2::{Delimiter, Ident, LexError, TokenStream, TokenTree};

/// The segments of a path. A path into the crate begins with `crate`. The last segment of a macro ends with `!`.
pub(super) type Path = Vec<String>;

/// The names of one file.
#[derive(Default)]
pub(super) struct Names {
    pub(super) mentions: Vec<Mention>,
    pub(super) imports: Vec<Import>,
    /// Modules with their body inside the file.
    pub(super) inline_modules: Vec<Path>,
    /// Modules under `#[cfg(test)]`.
    pub(super) test_modules: Vec<Path>,
}

/// A path at a position in the file.
pub(super) struct Mention {
    pub(super) path: Path,
    /// The module that contains it.
    pub(super) module: Path,
    pub(super) line: usize,
    /// Whether it is a `pub use`, which re-exports the name.
    pub(super) is_reexport: bool,
}

/// A name that a `use` defines.
pub(super) struct Import {
    pub(super) module: Path,
    pub(super) name: String,
    pub(super) path: Path,
}

/// Reads the source of a module.
pub(super) fn read(source: &str, module: &[String]) -> Result<Names, LexError> {
    let mut names = Names::default();
    names.walk(source.parse()?, module);
    Ok(names)
}

impl Names {
    fn walk(&mut self, stream: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += match rest {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
                    if hash.as_char() == '#' && is_test(attribute.stream()) =>
                {
                    let item = &rest[2..];
                    self.test_modules.extend(declared_module(item).map(|name| join(module, &name)));
                    2 + length_of_item(item)
                }
                [TokenTree::Ident(word), TokenTree::Ident(_) | TokenTree::Punct(_), ..]
                    if word == "use" && !is_punct(rest.get(1), '<') =>
                {
                    let end = rest.iter().position(|token| is_punct(Some(token), ';')).unwrap_or(rest.len());
                    let is_reexport = at > 0 && follows_visibility(&tokens[..at]);
                    self.add_use(&rest[1..end], Vec::new(), module, is_reexport);
                    end
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..]
                    if word == "mod" && body.delimiter() == Delimiter::Brace =>
                {
                    let inner = join(module, &name.to_string());
                    self.walk(body.stream(), &inner);
                    self.inline_modules.push(inner);
                    3
                }
                [TokenTree::Ident(first), ..] => {
                    let (path, length) = path_at(rest);
                    let is_whole = !continues_path(&tokens[..at]);
                    if is_whole && (path.len() > 1 || path[0].ends_with('!')) {
                        self.mention(&path, module, first, false);
                    }
                    length
                }
                [TokenTree::Group(group), ..] => {
                    self.walk(group.stream(), module);
                    1
                }
                _ => 1,
            };
        }
    }

    fn mention(&mut self, path: &[String], module: &[String], at: &Ident, is_reexport: bool) {
        self.mentions.push(Mention {
            path: absolute(path, module),
            module: module.to_vec(),
            line: at.span().start().line,
            is_reexport,
        });
    }

    /// Adds the imports of one tree of a `use`: `a::b`, `a::b as c`, `a::*` or `a::{…}`.
    fn add_use(&mut self, tree: &[TokenTree], mut path: Path, module: &[String], is_reexport: bool) {
        let mut last = None;
        let mut rename = None;
        let mut is_glob = false;
        let mut tokens = tree.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => rename = tokens.next().map(ToString::to_string),
                TokenTree::Ident(word) => {
                    path.push(word.to_string());
                    last = Some(word);
                }
                TokenTree::Punct(star) if star.as_char() == '*' => is_glob = true,
                TokenTree::Group(group) => {
                    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in tokens.split(|token| is_punct(Some(token), ',')) {
                        self.add_use(tree, path.clone(), module, is_reexport);
                    }
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        // Nothing follows the last comma.
        let Some(last) = last else { return };
        if path.len() > 1 {
            path.pop_if(|name| name == "self");
        }
        self.mention(&path, module, last, is_reexport);
        if let Some(name) = rename.or_else(|| path.last().cloned())
            && !is_glob
        {
            self.imports.push(Import { module: module.to_vec(), name, path: absolute(&path, module) });
        }
    }
}

/// The path at the start of the tokens, and the number of tokens that it takes.
fn path_at(tokens: &[TokenTree]) -> (Path, usize) {
    let mut path = vec![tokens[0].to_string()];
    let mut length = 1;
    while let [a, b, TokenTree::Ident(name), ..] = &tokens[length..]
        && is_punct(Some(a), ':')
        && is_punct(Some(b), ':')
    {
        path.push(name.to_string());
        length += 3;
    }
    if let [bang, TokenTree::Group(_), ..] = &tokens[length..]
        && is_punct(Some(bang), '!')
        && let Some(name) = path.last_mut()
    {
        name.push('!');
    }
    (path, length)
}

/// Whether the next tokens continue a path, as after `Vec::<u8>::`.
fn continues_path(before: &[TokenTree]) -> bool {
    matches!(before, [.., owner, a, b]
        if is_punct(Some(a), ':')
            && is_punct(Some(b), ':')
            && (matches!(owner, TokenTree::Ident(_)) || is_punct(Some(owner), '>')))
}

fn follows_visibility(before: &[TokenTree]) -> bool {
    match before {
        [.., TokenTree::Ident(word), TokenTree::Group(_)] | [.., TokenTree::Ident(word)] => word == "pub",
        _ => false,
    }
}

/// Whether an attribute restricts its item to tests: `cfg(test)`, or `cfg(all(…, test))`.
fn is_test(attribute: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(cfg), TokenTree::Group(condition)] if cfg == "cfg" => {
            let condition = condition.stream().to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,") || condition.ends_with(",test)")
        }
        _ => false,
    }
}

/// The name of the module that an item declares, after attributes and visibility.
fn declared_module(item: &[TokenTree]) -> Option<String> {
    let at = item[..length_of_item(item)]
        .iter()
        .position(|token| matches!(token, TokenTree::Ident(word) if word == "mod"))?;
    Some(item.get(at + 1)?.to_string())
}

/// The number of tokens of an item, up to its `;` or its body.
fn length_of_item(item: &[TokenTree]) -> usize {
    let is_use = item.iter().find(|token| matches!(token, TokenTree::Ident(_)));
    let is_use = is_use.is_some_and(|word| word.to_string() == "use");
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
        token => is_punct(Some(token), ';'),
    };
    item.iter().position(is_end).map_or(item.len(), |end| end + 1)
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Resolves `self` and `super` in a path.
fn absolute(path: &[String], module: &[String]) -> Path {
    match path.first().map(String::as_str) {
        Some("self") => [module, &path[1..]].concat(),
        Some("super") => {
            let supers = path.iter().take_while(|segment| *segment == "super").count();
            [&module[..module.len().saturating_sub(supers)], &path[supers..]].concat()
        }
        _ => path.to_vec(),
    }
}

pub(super) fn join(module: &[String], name: &str) -> Path {
    [module, &[name.to_owned()]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Names {
        let module = ["crate", "model", "world"].map(str::to_owned);
        read(source, &module).expect("Rust")
    }

    fn mentions(source: &str) -> Vec<(String, usize)> {
        names(source).mentions.iter().map(|mention| (mention.path.join("::"), mention.line)).collect()
    }

    fn paths(source: &str) -> Vec<String> {
        mentions(source).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn imports_are_read_with_their_lines() {
        let source =
            "use crate::{\n    event::Event,\n    text::{self, Name as N},\n};\nuse super::super::kernel::*;";
        let expected =
            [("crate::event::Event", 2), ("crate::text", 3), ("crate::text::Name", 3), ("crate::kernel", 5)];
        assert_eq!(mentions(source), expected.map(|(path, line)| (path.to_owned(), line)));
        let names: Vec<_> = names(source).imports.into_iter().map(|import| import.name).collect();
        assert_eq!(names, ["Event", "text", "N"]);
    }

    #[test]
    fn paths_are_read_in_code_attributes_and_macros() {
        let source = "#[derive(clap::Args)] struct A(Vec<crate::event::Event>); \
                      fn f() { a.b(self::g::<u8>::h); vec![super::inits::X]; ::std::process::exit(1) }";
        assert_eq!(
            paths(source),
            [
                "clap::Args",
                "crate::event::Event",
                "crate::model::world::g",
                "vec!",
                "crate::model::inits::X",
                "std::process::exit"
            ]
        );
    }

    #[test]
    fn super_in_an_inline_module_is_the_outer_module() {
        assert_eq!(
            paths("mod inner { use super::X; use super::super::Y; }"),
            ["crate::model::world::X", "crate::model::Y"]
        );
    }

    #[test]
    fn names_in_tests_comments_and_strings_are_skipped() {
        assert_eq!(
            paths(
                "/// See crate::kernel.\n#[cfg(test)] use crate::{a::B, c};\n#[cfg(test)]\n#[expect(x)]\npub(crate) fn \
                 f() -> crate::d::E { crate::g::h() }\n#[cfg(test)]\nmod tests { use crate::i; }\nconst A: &str = \
                 \"crate::j::k\";\nuse crate::l;"
            ),
            ["crate::l"]
        );
        let names = names("#[cfg(test)]\nmod fakes;\n#[cfg(test)] fn f() {}\nmod real;");
        assert_eq!(names.test_modules, [["crate", "model", "world", "fakes"]]);
    }

    #[test]
    fn a_public_use_is_a_reexport() {
        let names = names("use a::A; pub use b::B; pub(crate) use c::C;");
        assert_eq!(
            names.mentions.iter().map(|mention| mention.is_reexport).collect::<Vec<_>>(),
            [false, true, true]
        );
    }
}
