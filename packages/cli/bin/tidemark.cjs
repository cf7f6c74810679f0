#!/usr/bin/env node
// A file of its own, so that pnpm can link the command before the bundle is built.
if (!saidVersion(process.argv.slice(2))) require('./load.cjs').load('tidemark.cjs')

/** Asked for by every script that looks whether the command is there: not worth loading the command line for. */
function saidVersion(args) {
  if (args.length !== 1 || (args[0] !== '--version' && args[0] !== '-V')) return false
  try {
    require('node:fs').writeSync(1, `${require('../package.json').version}\n`)
    return true
  } catch {
    // The command line knows what to say of a full disk.
    return false
  }
}
