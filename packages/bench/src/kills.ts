// npm run bench:kills: qemu-img bitmap and tidemark bitmap, killed before each single call that changes the image. How
// often do the bitmaps survive that nobody asked to change?
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import {
  changingCalls,
  dirtyMaps,
  everyCall,
  oneThread,
  qemuImg,
  qemuIo,
  strace,
  withTempDir,
} from '@tidemark/testkit'
import { type Command, qemuImg as qemuImgCommand, tidemark } from './process/command.js'

const usage = `Usage: npm run bench:kills -- [--write]

  --write  puts the table into docs/durability.md
`
const durability = fileURLToPath(new URL('../../../docs/durability.md', import.meta.url))
const [BEGIN, END] = ['<!-- bench:kills -->', '<!-- /bench:kills -->']

/** Of FILE's six bitmaps at most one is to change. */
const edits: readonly (readonly [what: string, touched: string, args: readonly string[]])[] = [
  ['add', 'new', ['--add', 'FILE', 'new']],
  ['remove', 'b0', ['--remove', 'FILE', 'b0']],
  ['clear', 'b0', ['--clear', 'FILE', 'b0']],
  ['merge', 'b0', ['--merge', 'b1', 'FILE', 'b0']],
]

const tools: readonly (readonly [name: string, command: (args: readonly string[]) => Command])[] = [
  ['qemu-img', args => qemuImgCommand('bitmap', ...oneThread, ...args)],
  ['tidemark', args => tidemark('bitmap', ...args)],
]

/** Flags and bits by name; of one in use nobody can tell the bits, so it is lost. */
type State = ReadonlyMap<string, string>

async function stateOf(file: string): Promise<State> {
  const info = await qemuImg.info(file, { format: 'qcow2' })
  const maps = await dirtyMaps(file)
  const bitmaps = info['format-specific']?.data.bitmaps ?? []
  return new Map(bitmaps.map(({ name, flags }) => [name, JSON.stringify([flags, maps.get(name)])]))
}

const same = (a: State, b: State): boolean => JSON.stringify([...a].sort()) === JSON.stringify([...b].sort())

interface Row {
  readonly edit: string
  readonly tool: string
  readonly points: number
  /** Kill points after which all bitmaps that were not to change are as before. */
  readonly survived: number
  /** After which all bitmaps are as before, or as they were to be. */
  readonly whole: number
  /** After which qemu-img check finds no corruption. */
  readonly sound: number
}

async function makeImage(file: string): Promise<void> {
  await qemuImg.create(file, '1G')
  for (let i = 0; i < 6; i++) {
    await qemuImg.bitmap('--add', file, `b${i}`)
    await qemuIo(file, [`write -q -P ${i + 1} ${i * 100}M ${i + 1}M`])
    await qemuImg.bitmap('--disable', file, `b${i}`)
  }
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}

async function main(): Promise<number> {
  const args = process.argv.slice(2)
  const write = args.includes('--write')
  if (args.some(arg => arg !== '--write')) {
    process.stderr.write(usage)
    return 2
  }
  const rows = await withTempDir(async dir => {
    const model = dir.file('model.qcow2')
    const file = dir.file('victim.qcow2')
    await makeImage(model)
    const before = await stateOf(model)
    const found: Row[] = []
    for (const [edit, touched, words] of edits) {
      for (const [tool, commandOf] of tools) {
        const { program, args } = commandOf(words.map(word => (word === 'FILE' ? file : word)))
        const command = [program, ...args]
        copyFileSync(model, file)
        const { calls, status, stderr } = await strace(command, file)
        if (status !== 0) throw new Error(`${command.join(' ')}: ${stderr}`)
        const after = await stateOf(file)
        const row = { edit, tool, points: 0, survived: 0, whole: 0, sound: 0 }
        for (const inject of everyCall(calls, changingCalls, 'signal=SIGKILL')) {
          copyFileSync(model, file)
          const { signal } = await strace(command, file, { inject })
          if (signal !== 'SIGKILL') throw new Error(`${tool} was not killed at ${inject.call} ${inject.nth}`)
          row.points++
          const { corruptions } = await qemuImg.check(file)
          if (corruptions === 0) row.sound++
          const now = await stateOf(file)
          const untouched = [...before.keys()].filter(name => name !== touched)
          if (untouched.every(name => now.get(name) === before.get(name))) row.survived++
          if (same(now, before) || same(now, after)) row.whole++
          progress(`${edit} by ${tool}: ${row.points}`)
        }
        found.push(row)
      }
    }
    progress('')
    return found
  })
  const text = markdown(rows)
  process.stdout.write(text)
  if (write) writeInto(durability, text)
  return 0
}

function markdown(rows: readonly Row[]): string {
  const lines = rows.map(
    ({ edit, tool, points, survived, whole, sound }) =>
      `| ${edit} | ${tool} bitmap | ${points} | ${survived} | ${whole} | ${sound} |`,
  )
  return [
    '| edit | by | kills | untouched bitmaps survive | all are old or new | no corruption |',
    '|---|---|--:|--:|--:|--:|',
    ...lines,
    '',
  ].join('\n')
}

function writeInto(file: string, text: string): void {
  const before = readFileSync(file, 'utf8')
  const [start, rest] = before.split(`${BEGIN}\n`)
  const end = rest?.split(END)[1]
  if (end === undefined) throw new Error(`${file} has no place for the table: ${BEGIN} … ${END}`)
  writeFileSync(file, `${start}${BEGIN}\n${text}${END}${end}`)
}

process.exitCode = await main()
