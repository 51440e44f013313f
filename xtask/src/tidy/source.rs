//! Rules about one Rust file, on its syntax tree.

mod safety;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Fields, ImplItem, Item, Visibility};

use super::tree::Source;
use super::{FILE_LINES_MAX, FUNCTION_LINES_MAX, Finding, METHODS_MAX};

/// The one crate that holds `unsafe`.
const UNSAFE_CRATE: &str = "sys";
/// Macros that leave work for later or print from within.
const BANNED_MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];

/// What a file tells.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) findings: Vec<Finding>,
    /// Tests as `crate::module::name`, without `it` and `tests` among the modules.
    pub(super) tests: BTreeSet<String>,
    /// Type and number of inherent methods.
    pub(super) methods: BTreeMap<String, usize>,
}

/// Whether the file opens with a `//!` page.
pub(super) fn has_page(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    first.is_some_and(|line| line.starts_with("//!"))
}

/// Checks a file; `pages` are the files that open with a `//!` page.
pub(super) fn check(file: &Source, pages: &BTreeSet<PathBuf>) -> Facts {
    let tree = match syn::parse_file(&file.text) {
        Ok(tree) => tree,
        Err(err) => {
            let finding = Finding::new(&file.path, err.span().start().line, format!("not Rust: {err}"));
            return Facts { findings: vec![finding], ..Facts::default() };
        }
    };
    let mut walk = Walk::new(file, pages);
    if file.within.ends_with("src/lib.rs") && !has_page(&file.text) {
        walk.report(1, "lib.rs opens with a `//!` page: what the crate owns and what it does not do".into());
    }
    walk.visit_file(&tree);
    if !is_test_file(&file.within) {
        walk.check_length(file);
    }
    walk.facts
}

struct Walk<'a> {
    file: &'a Source,
    pages: &'a BTreeSet<PathBuf>,
    /// Of the place in the file where the walk is.
    modules: Vec<String>,
    in_test: bool,
    test_lines: usize,
    facts: Facts,
}

impl<'a> Walk<'a> {
    fn new(file: &'a Source, pages: &'a BTreeSet<PathBuf>) -> Walk<'a> {
        let in_test = is_test_file(&file.within);
        Walk { file, pages, modules: modules(&file.within), in_test, test_lines: 0, facts: Facts::default() }
    }

    fn report(&mut self, line: usize, message: String) {
        self.facts.findings.push(Finding::new(&self.file.path, line, message));
    }

    fn check_length(&mut self, file: &Source) {
        let lines = file.text.lines().count() - self.test_lines;
        if lines > FILE_LINES_MAX {
            self.report(1, format!("{lines} lines, the limit is {FILE_LINES_MAX}: split the file by noun"));
        }
    }

    fn note_test(&mut self, name: &str) {
        let path = self.modules.iter().filter(|module| !matches!(module.as_str(), "it" | "tests"));
        let path: Vec<&str> = path.map(String::as_str).collect();
        let whole = [&[self.file.krate.as_str()], path.as_slice(), &[name]].concat();
        self.facts.tests.insert(whole.join("::"));
    }

    fn check_function(&mut self, attributes: &[Attribute], signature: &syn::Signature, end: Span) {
        if is_test(attributes) {
            self.note_test(&signature.ident.to_string());
        }
        let begin = signature.fn_token.span().start().line;
        let lines = end.end().line - begin + 1;
        if lines > FUNCTION_LINES_MAX && !self.in_test && !is_test(attributes) {
            let message = format!(
                "function {} has {lines} lines, the limit is {FUNCTION_LINES_MAX}: let one part decide, others do",
                signature.ident
            );
            self.report(begin, message);
        }
        if matches!(signature.safety, syn::Safety::Unsafe(_)) {
            self.check_unsafe(begin, false);
        }
    }

    /// `reasoned`: whether a `// SAFETY:` comment is asked for.
    fn check_unsafe(&mut self, line: usize, reasoned: bool) {
        if self.file.krate != UNSAFE_CRATE {
            self.report(line, format!("unsafe outside of crate {UNSAFE_CRATE}: add a safe wrapper there"));
        } else if reasoned && !safety::is_explained(&self.file.text, line) {
            self.report(line, "unsafe without `// SAFETY:` above it: say what the call needs and why it holds".into());
        }
    }

    fn check_doc(&mut self, what: &str, visibility: &Visibility, attributes: &[Attribute], span: Span) {
        if matches!(visibility, Visibility::Public(_)) {
            self.check_doc_always(what, attributes, span);
        }
    }

    fn check_doc_always(&mut self, what: &str, attributes: &[Attribute], span: Span) {
        if !self.in_test && !attributes.iter().any(|attribute| attribute.path().is_ident("doc")) {
            self.report(span.start().line, format!("{what} is pub and has no doc line: say what it is"));
        }
    }

    fn check_fields(&mut self, fields: &Fields) {
        for field in fields {
            let name = field.ident.as_ref().map_or("a field".to_owned(), |name| format!("field {name}"));
            // A tuple struct's one field is said by the struct's own line.
            if field.ident.is_some() {
                self.check_doc(&name, &field.vis, &field.attrs, field.span());
            }
        }
    }

    fn check_enum(&mut self, item: &syn::ItemEnum) {
        self.check_doc(&format!("enum {}", item.ident), &item.vis, &item.attrs, item.ident.span());
        if !matches!(item.vis, Visibility::Public(_)) {
            return;
        }
        for variant in &item.variants {
            self.check_doc_always(&format!("variant {}", variant.ident), &variant.attrs, variant.ident.span());
        }
    }

    fn check_trait(&mut self, item: &syn::ItemTrait) {
        self.check_doc(&format!("trait {}", item.ident), &item.vis, &item.attrs, item.ident.span());
        let methods = item.items.iter().filter_map(|item| match item {
            syn::TraitItem::Fn(method) => Some(method),
            _ => None,
        });
        let methods: Vec<_> = methods.collect();
        if methods.len() > METHODS_MAX && !self.in_test {
            let message = format!("trait {} has {} methods, the limit is {METHODS_MAX}", item.ident, methods.len());
            self.report(item.ident.span().start().line, message);
        }
        for method in methods.into_iter().filter(|_| matches!(item.vis, Visibility::Public(_))) {
            let name = format!("method {}", method.sig.ident);
            self.check_doc_always(&name, &method.attrs, method.sig.ident.span());
        }
    }

    fn check_impl(&mut self, item: &syn::ItemImpl) {
        if item.trait_.is_some() {
            return;
        }
        let syn::Type::Path(path) = &*item.self_ty else { return };
        let Some(name) = path.path.segments.last().map(|segment| segment.ident.to_string()) else { return };
        let methods = item.items.iter().filter_map(|item| match item {
            ImplItem::Fn(method) => Some(method),
            _ => None,
        });
        let methods: Vec<_> = methods.collect();
        if !self.in_test {
            *self.facts.methods.entry(name).or_default() += methods.len();
        }
        for method in methods {
            self.check_doc(
                &format!("method {}", method.sig.ident),
                &method.vis,
                &method.attrs,
                method.sig.ident.span(),
            );
        }
    }

    /// `pub mod name;` may have its words on the `//!` page of its file.
    fn check_module(&mut self, item: &syn::ItemMod) {
        let name = item.ident.to_string();
        let dir = self.file.path.parent().unwrap_or(Path::new(""));
        let stem = self.file.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let dir = if matches!(stem, "lib" | "main" | "mod") { dir.to_owned() } else { dir.join(stem) };
        let dir = dir.join(self.modules.iter().skip(modules(&self.file.within).len()).collect::<PathBuf>());
        let files = [dir.join(format!("{name}.rs")), dir.join(&name).join("mod.rs")];
        let inner_page = item.content.is_some() && item.attrs.iter().any(|a| a.path().is_ident("doc"));
        if !inner_page && !files.iter().any(|file| self.pages.contains(file)) {
            self.check_doc(&format!("module {name}"), &item.vis, &item.attrs, item.ident.span());
        }
    }

    fn check_item(&mut self, item: &Item) {
        match item {
            Item::Struct(item) => {
                self.check_doc(&format!("struct {}", item.ident), &item.vis, &item.attrs, item.ident.span());
                self.check_fields(&item.fields);
            }
            Item::Enum(item) => self.check_enum(item),
            Item::Trait(item) => self.check_trait(item),
            Item::Impl(item) => self.check_impl(item),
            Item::Mod(item) => self.check_module(item),
            Item::Fn(item) => {
                self.check_doc(&format!("function {}", item.sig.ident), &item.vis, &item.attrs, item.sig.ident.span());
            }
            Item::Const(item) => {
                self.check_doc(&format!("constant {}", item.ident), &item.vis, &item.attrs, item.ident.span());
            }
            Item::Static(item) => {
                self.check_doc(&format!("static {}", item.ident), &item.vis, &item.attrs, item.ident.span());
            }
            Item::Type(item) => {
                self.check_doc(&format!("type {}", item.ident), &item.vis, &item.attrs, item.ident.span());
            }
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        self.check_item(item);
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let outer = self.in_test;
        if is_cfg_test(&item.attrs) && !outer {
            self.in_test = true;
            self.test_lines += item.span().end().line - item.span().start().line + 1;
        }
        self.modules.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.modules.pop();
        self.in_test = outer;
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.check_function(&item.attrs, &item.sig, item.block.brace_token.span.close());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.check_function(&item.attrs, &item.sig, item.block.brace_token.span.close());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_unsafe(&mut self, item: &'ast syn::ExprUnsafe) {
        self.check_unsafe(item.unsafe_token.span().start().line, true);
        visit::visit_expr_unsafe(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(token) = &item.unsafety {
            self.check_unsafe(token.span().start().line, true);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.check_unsafe(item.span().start().line, false);
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let line = attribute.span().start().line;
        if attribute.path().is_ident("ignore") {
            self.report(line, "ignored test: make it run, or delete it".into());
        }
        if attribute.path().is_ident("unsafe") {
            self.check_unsafe(line, false);
        }
        let allows = attribute.path().is_ident("allow") || attribute.path().is_ident("expect");
        if allows && mentions(attribute, "unsafe_code") {
            self.check_unsafe(line, false);
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if let Some(name) = BANNED_MACROS.iter().find(|name| item.path.is_ident(*name)) {
            self.report(item.path.span().start().line, format!("{name}! does not belong in a commit: do the work now"));
        }
        if item.path.segments.last().is_some_and(|last| last.ident == "proptest") {
            functions(item.tokens.clone()).iter().for_each(|name| self.note_test(name));
        }
        visit::visit_macro(self, item);
    }
}

/// The functions of a macro's own level, whose parameters are no Rust: with `proptest!` each is a test.
fn functions(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let named = |pair: &[TokenTree]| match pair {
        [TokenTree::Ident(word), TokenTree::Ident(name)] if word == "fn" => Some(name.to_string()),
        _ => None,
    };
    tokens.windows(2).filter_map(named).collect()
}

/// Files that hold nothing but tests.
pub(super) fn is_test_file(within: &Path) -> bool {
    let is = |name: &std::ffi::OsStr| ["tests", "tests.rs", "testsuite.rs", "benches"].iter().any(|test| name == *test);
    within.components().any(|component| is(component.as_os_str()))
}

/// The modules that a file's path in its crate spells.
fn modules(within: &Path) -> Vec<String> {
    let stem = within.with_extension("");
    let names = stem.components().skip(1).map(|part| part.as_os_str().to_string_lossy().into_owned());
    names.filter(|name| !matches!(name.as_str(), "lib" | "main" | "mod")).collect()
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "test"))
}

fn is_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg") && mentions(attribute, "test"))
}

/// Whether the attribute's list, `cfg(...)` or `allow(...)`, has this word.
fn mentions(attribute: &Attribute, word: &str) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    list.tokens.to_string().split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}
