import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

/** What the browser loads before the page can be used: the document, its scripts and its styles. */
const LARGEST_FIRST_LOAD = 300_000;

/** Fail the build when the first load is too heavy; what a dynamic import loads is not counted. */
function firstLoad(): Plugin {
  return {
    name: "first-load",
    apply: "build",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        const counted = new Set(Object.keys(bundle).filter((name) => /\.(html|css)$/.test(name)));
        const count = (name: string): void => {
          const file = bundle[name];
          if (file?.type !== "chunk" || counted.has(name)) return;
          counted.add(name);
          file.imports.forEach(count);
        };
        for (const file of Object.values(bundle)) {
          if (file.type === "chunk" && file.isEntry) count(file.fileName);
        }
        let size = 0;
        for (const name of counted) {
          const file = bundle[name];
          if (file) size += gzipSync(file.type === "chunk" ? file.code : file.source).length;
        }
        if (size > LARGEST_FIRST_LOAD) {
          this.error(`The first load is ${size} bytes compressed, over ${LARGEST_FIRST_LOAD}.`);
        }
        this.info(`The first load is ${size} bytes compressed.`);
      },
    },
  };
}

/** Write `NAME.gz` beside what gets smaller by it; otsd sends that to whoever takes it. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    enforce: "post",
    generateBundle: {
      order: "post",
      handler(_, bundle) {
        for (const [name, file] of Object.entries(bundle)) {
          if (!/\.(js|css)$/.test(name)) continue;
          const content = file.type === "chunk" ? file.code : file.source;
          const source = gzipSync(content, { level: 9 });
          this.emitFile({ type: "asset", fileName: `${name}.gz`, source });
        }
      },
    },
  };
}

const socketPath = process.env["OTSD_SOCKET"];

export default defineConfig({
  base: "./", // the page may be below any path
  plugins: [firstLoad(), compressed()],
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // nothing in the page needs more than 'self'
    chunkSizeWarningLimit: 1000, // firstLoad() has the say
  },
  server: {
    host: "127.0.0.1",
    proxy: socketPath
      ? { "/api": { target: { socketPath, protocol: "http:", host: "localhost", port: 80 } } }
      : {},
  },
});
