import { describeError } from './errors.js'
import { exitStatus } from './exit-status.js'
import { Interruption } from './interruption.js'
import { Output, type OutputFormat } from './output.js'
import { buildProgram } from './program.js'

const argv = process.argv.slice(2)

const interruption = new Interruption(status => process.exit(status))
process.on('SIGINT', () => interruption.come(exitStatus.interrupted))
process.on('SIGTERM', () => interruption.come(128 + 15))
// The terminal was closed. (nohup is no help: Node undoes it as it starts.)
process.on('SIGHUP', () => interruption.come(128 + 1))

run(argv).then(status => {
  // Not process.exit: what is still on its way to a pipe would be cut off.
  process.exitCode = interruption.status ?? status
})

async function run(args: readonly string[]): Promise<number> {
  const output = new Output(wantedFormat(args))
  try {
    const status = await buildProgram(output, interruption).run(args)
    await output.flush()
    return status
  } catch (error) {
    const shown = describeError(error)
    if (shown.code === 'broken-pipe') return exitStatus.brokenPipe
    output.error(error)
    return shown.status
  }
}

/** Known before the arguments are parsed, so that a usage error can be told as JSON too. The last one counts. */
function wantedFormat(args: readonly string[]): OutputFormat {
  let value: string | undefined
  for (const [i, arg] of args.entries()) {
    if (arg === '--') break
    if (arg === '--output') value = args[i + 1]
    else if (arg.startsWith('--output=')) value = arg.slice('--output='.length)
  }
  return value === 'json' ? 'json' : 'human'
}
