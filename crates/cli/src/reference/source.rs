//! What the source says of the types that recipes are read into and that steps are written from: keys, their types and defaults, and the
//! documentation.

use std::collections::BTreeMap;

use syn::{Attribute, Expr, Field, Fields, ImplItem, Item, Lit, Meta, Stmt, Type};

use super::root;

/// Where these types, the functions that their defaults come from, and the types that steps are written from stand.
const FILES: [&str; 30] = [
    "cli/src/recipe/align.rs",
    "cli/src/recipe/language_model.rs",
    "cli/src/recipe/method.rs",
    "cli/src/recipe/reward_model.rs",
    "cli/src/recipe/scorer.rs",
    "cli/src/train/methods.rs",
    "data/src/plant.rs",
    "decode/src/sampling.rs",
    "model/src/lora/config.rs",
    "record/src/expect.rs",
    "reward/src/config.rs",
    "reward/src/ensemble.rs",
    "reward/src/rules.rs",
    "train/src/baselines/bond.rs",
    "train/src/baselines/offline.rs",
    "train/src/baselines/stored.rs",
    "train/src/ctrl.rs",
    "train/src/fit.rs",
    "train/src/language_model.rs",
    "train/src/metrics.rs",
    "train/src/optimizer.rs",
    "train/src/prefix_scorer/mod.rs",
    "train/src/reward_model/mod.rs",
    "train/src/solver/grpo.rs",
    "train/src/solver/kl.rs",
    "train/src/solver/mod.rs",
    "train/src/solver/ppo.rs",
    "train/src/solver/regression.rs",
    "train/src/solver/reinforce.rs",
    "train/src/solver/rloo.rs",
];

/// The files, parsed.
pub(super) struct Sources {
    files: Vec<syn::File>,
}

/// A type, with the file that it stands in.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) item: &'a Item,
    file: usize,
}

/// A key of a table.
pub(super) struct Key<'a> {
    pub(super) name: String,
    pub(super) of: &'a Type,
    pub(super) default: Default,
    pub(super) doc: String,
    /// Whether its type's keys stand in its place.
    pub(super) flatten: bool,
    /// Where its type is looked for first.
    pub(super) file: usize,
}

/// What holds where a recipe leaves a key out.
pub(super) enum Default {
    Required,
    Absent,
    /// The default of its type.
    OfType,
    /// A value, as a recipe writes it.
    Value(String),
}

/// A variant of an enumeration.
pub(super) struct Variant<'a> {
    /// As a recipe writes it.
    pub(super) word: String,
    pub(super) doc: String,
    pub(super) fields: &'a Fields,
    pub(super) is_default: bool,
}

impl Sources {
    pub(super) fn read() -> Self {
        let parse = |name: &str| {
            let text = std::fs::read_to_string(root().join("crates").join(name)).unwrap();
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        Self { files: FILES.into_iter().map(parse).collect() }
    }

    /// The type of this name, of the same file if that has one.
    pub(super) fn find(&self, name: &str, near: usize) -> Option<Found<'_>> {
        let is_it = |item: &&Item| match item {
            Item::Struct(of) => of.ident == name,
            Item::Enum(of) => of.ident == name,
            _ => false,
        };
        self.search(near, |file| self.files[file].items.iter().find(is_it))
            .map(|(file, item)| Found { item, file })
    }

    fn search<T>(&self, near: usize, look: impl Fn(usize) -> Option<T>) -> Option<(usize, T)> {
        let order = std::iter::once(near).chain(0..self.files.len());
        order.into_iter().find_map(|file| Some((file, look(file)?)))
    }

    /// The keys of a struct, or of a variant of an enumeration, but for those that are neither read nor written.
    pub(super) fn keys<'a>(&self, found: Found<'a>, fields: &'a Fields) -> Vec<Key<'a>> {
        let whole = match found.item {
            Item::Struct(of) if serde(&of.attrs, "default").is_some() => {
                Some(self.default_of(&of.ident.to_string(), found.file))
            }
            _ => None,
        };
        let key = |field: &'a Field| {
            let name = field.ident.as_ref()?.to_string();
            if serde(&field.attrs, "skip").is_some() {
                return None;
            }
            let default = match (&whole, serde(&field.attrs, "default")) {
                (Some(values), _) => Default::Value(values[&name].clone()),
                (None, Some(Some(function))) => Default::Value(self.call(&function, found.file)),
                (None, Some(None)) if !is_option(&field.ty) => Default::OfType,
                (None, None) if !is_option(&field.ty) => Default::Required,
                _ => Default::Absent,
            };
            Some(Key {
                name: serde(&field.attrs, "rename").flatten().unwrap_or(name),
                of: &field.ty,
                default,
                doc: doc(&field.attrs),
                flatten: serde(&field.attrs, "flatten").is_some(),
                file: found.file,
            })
        };
        fields.iter().filter_map(key).collect()
    }

    pub(super) fn variants<'a>(&self, found: Found<'a>) -> Vec<Variant<'a>> {
        let Item::Enum(of) = found.item else { return Vec::new() };
        let rule = serde(&of.attrs, "rename_all").flatten().unwrap_or_default();
        let variant = |variant: &'a syn::Variant| Variant {
            word: word(&variant.ident.to_string(), &rule),
            doc: doc(&variant.attrs),
            fields: &variant.fields,
            is_default: variant.attrs.iter().any(|attribute| attribute.path().is_ident("default")),
        };
        of.variants.iter().map(variant).collect()
    }

    /// What a function without arguments returns.
    fn call(&self, function: &str, near: usize) -> String {
        let look = |file: usize| {
            self.files[file].items.iter().find_map(|item| match item {
                Item::Fn(of) if of.sig.ident == function => of.block.stmts.last(),
                _ => None,
            })
        };
        match self.search(near, look) {
            Some((file, Stmt::Expr(value, None))) => self.value(value, file),
            _ => panic!("the default `{function}` is not found: add its file to FILES"),
        }
    }

    /// The values of the fields in `impl Default for NAME`.
    fn default_of(&self, name: &str, file: usize) -> BTreeMap<String, String> {
        let is_it = |item: &&Item| match item {
            Item::Impl(of) => {
                let trait_is =
                    of.trait_.as_ref().is_some_and(|(_, path, _)| path.is_ident("Default"));
                trait_is && type_name(&of.self_ty) == Some(name.to_owned())
            }
            _ => false,
        };
        let Some(Item::Impl(of)) = self.files[file].items.iter().find(is_it) else {
            panic!("{name} has no `impl Default` beside it")
        };
        let Some(ImplItem::Fn(function)) = of.items.first() else { panic!("{name}: no function") };
        let Some(Stmt::Expr(Expr::Struct(made), None)) = function.block.stmts.last() else {
            panic!("the default of {name} is no struct expression")
        };
        let named = |field: &syn::FieldValue| match &field.member {
            syn::Member::Named(name) => Some((name.to_string(), self.value(&field.expr, file))),
            syn::Member::Unnamed(_) => None,
        };
        made.fields.iter().filter_map(named).collect()
    }

    /// An expression as a recipe would write its value.
    fn value(&self, value: &Expr, file: usize) -> String {
        match value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(number) => number.base10_digits().to_owned(),
                Lit::Float(number) => number.base10_digits().to_owned(),
                Lit::Bool(yes) => yes.value.to_string(),
                Lit::Str(text) => format!("{:?}", text.value()),
                _ => panic!("a default is a literal of another kind"),
            },
            // A collection that is empty, as `BTreeSet::new()`.
            Expr::Call(call) if call.args.is_empty() => "[]".to_owned(),
            Expr::Path(path) if path.path.segments.len() == 2 => {
                let [of, variant] = [0, 1].map(|at| path.path.segments[at].ident.to_string());
                let found = self.find(&of, file).unwrap_or_else(|| panic!("{of} is not found"));
                let Item::Enum(item) = found.item else { panic!("{of} is no enumeration") };
                let rule = serde(&item.attrs, "rename_all").flatten().unwrap_or_default();
                format!("{:?}", word(&variant, &rule))
            }
            _ => panic!("a default is neither a literal nor a variant"),
        }
    }
}

impl Found<'_> {
    pub(super) fn doc(self) -> String {
        match self.item {
            Item::Struct(of) => doc(&of.attrs),
            Item::Enum(of) => doc(&of.attrs),
            _ => String::new(),
        }
    }

    /// The file, by which further types are looked for.
    pub(super) fn near(self) -> usize {
        self.file
    }
}

/// The name of a type without its path.
pub(super) fn type_name(of: &Type) -> Option<String> {
    let Type::Path(path) = of else { return None };
    path.path.segments.last().map(|segment| segment.ident.to_string())
}

/// What stands between `<` and `>` last, such as the T of `Option<T>`.
pub(super) fn argument(of: &Type) -> Option<&Type> {
    let Type::Path(path) = of else { return None };
    let syn::PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments
    else {
        return None;
    };
    arguments.args.iter().rev().find_map(|argument| match argument {
        syn::GenericArgument::Type(of) => Some(of),
        _ => None,
    })
}

fn is_option(of: &Type) -> bool {
    type_name(of).is_some_and(|name| name == "Option")
}

/// Whether serde's attributes have a key, and its text.
pub(super) fn serde(attributes: &[Attribute], key: &str) -> Option<Option<String>> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        let read = attribute.parse_nested_meta(|meta| {
            let text = match meta.value() {
                Ok(value) => Some(value.parse::<syn::LitStr>()?.value()),
                Err(_) => None,
            };
            if meta.path.is_ident(key) {
                found = Some(text);
            }
            Ok(())
        });
        read.unwrap();
    }
    found
}

/// The documentation as one line.
fn doc(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let lines: Vec<_> = attributes.iter().filter_map(line).collect();
    lines.join(" ").replace("[`", "`").replace("`]", "`")
}

/// A variant's name as serde has it.
fn word(variant: &str, rule: &str) -> String {
    let mut word = String::new();
    for letter in variant.chars() {
        if letter.is_uppercase() && !word.is_empty() && rule == "kebab-case" {
            word.push('-');
        }
        word.extend(letter.to_lowercase());
    }
    word
}
