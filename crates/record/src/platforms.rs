//! Root file systems that actions name in their platform properties.

use cas_client::Result;
use overlay::Platform;
use overlay::graph::Element;
use reapi_proto::Digest;
use reapi_proto::raw::Action;
use rustc_hash::FxHashSet;

use crate::run::Run;

impl Run<'_> {
    /// The unions of artifacts that properties of these actions name. Nothing
    /// is read unless a property is a digest.
    pub(crate) async fn platforms<'a>(
        &mut self,
        element: &Element,
        actions: impl Iterator<Item = &'a Action>,
    ) -> Result<Vec<Platform>> {
        let named: FxHashSet<Digest> = actions
            .flat_map(|action| action.platform().filter_map(|p| std::str::from_utf8(p.value).ok()?.parse().ok()))
            .collect();
        let mut found = Vec::new();
        if named.is_empty() {
            return Ok(found);
        }
        let is_said = element.platforms.is_some();
        for platform in self.graph.platforms(&element.name) {
            let of: Option<Vec<(String, Digest)>> =
                platform.iter().map(|element| Some((element.name.clone(), element.artifact?))).collect();
            let Some(of) = of else { continue };
            let roots: Vec<Digest> = of.iter().map(|(_, artifact)| *artifact).collect();
            let root = match self.unions.get(&roots) {
                Some(known) => *known,
                None => {
                    let root = self.directories.union(&*self.generator.blobs, &roots).await?;
                    self.unions.insert(roots.clone(), root);
                    root
                }
            };
            // A guess at what the platform is made of is no better than the one artifact that explains it.
            if let Some(root) = root.filter(|root| named.contains(root) && (is_said || !roots.contains(root))) {
                found.push(Platform { root, of });
            }
        }
        Ok(found)
    }
}
