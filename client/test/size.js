// Prints what each part adds to a page, in bytes: bundled and minified, and gzipped.

import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const lazy = ["./tabs.js"];
const parts = {
  core: { entry: "index.js", external: lazy },
  tabs: { entry: "tabs.js", external: ["./source.js", "./attempt.js"] },
  react: { entry: "react.js", external: ["react", "./index.js"] },
};

const sizes = {};
for (const [name, { entry, external }] of Object.entries(parts)) {
  const { outputFiles } = await build({
    entryPoints: [new URL(`../dist/${entry}`, import.meta.url).pathname],
    bundle: true,
    external,
    format: "esm",
    minify: true,
    target: "es2022",
    write: false,
  });
  const { contents } = outputFiles[0];
  sizes[name] = { minified: contents.length, gzipped: gzipSync(contents, { level: 9 }).length };
}
console.log(JSON.stringify(sizes));
