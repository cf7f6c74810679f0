#!/usr/bin/env node
// A file of its own, so that pnpm can link the command before the bundle is built.
require('../dist/tidemark.cjs')
