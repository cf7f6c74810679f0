import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { needs, programPath, qemuImg, run, type TempDir, tempDir } from '@tidemark/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bin, plainEnv, tidemark, tidemarkError } from './cli.js'
import { createLuks } from './luks.js'

const peers = needs('qemu-img', 'qemu-io')
const SECRET = 'correct horse'

describe.skipIf(peers.skip)(`the passphrase of an encrypted image${peers.label}`, () => {
  let dir: TempDir
  let plain: Buffer
  beforeAll(async () => {
    dir = tempDir()
    // QEMU takes a file as it is: what is in it is the passphrase, a newline too.
    for (const [name, secret] of [
      ['bare', SECRET],
      ['newline', `${SECRET}\n`],
    ] as const) {
      writeFileSync(dir.file(`${name}.key`), secret)
      const object = `secret,id=k,file=${dir.file(`${name}.key`)}`
      await createLuks(dir.file(`${name}.qcow2`), '1M', `file=${dir.file(`${name}.key`)}`)
      const open = `driver=qcow2,encrypt.key-secret=k,file.filename=${dir.file(`${name}.qcow2`)}`
      await run('qemu-io', ['--object', object, '--image-opts', open, '-c', 'write -P 7 100k 100k'])
    }
    plain = Buffer.alloc(2 ** 20)
    plain.fill(7, 100 * 1024, 200 * 1024)
  })
  afterAll(() => dir?.remove())

  /** In a shell, for pipes. @returns exit status and error; what was dumped is right or not there */
  const dump = async (image: string, shell: (command: string) => string): Promise<[number, string]> => {
    const out = dir.file('out.raw')
    const command = `"${process.execPath}" "${bin}" dump "${dir.file(image)}" -o "${out}"`
    const { status, stdout, stderr } = await run('bash', ['-c', shell(command)], {
      accept: 'any',
      env: plainEnv,
    })
    expect(stdout).toBe('')
    expect(stderr).not.toContain(SECRET)
    expect(existsSync(out)).toBe(status === 0)
    if (status === 0) {
      expect(readFileSync(out).equals(plain)).toBe(true)
      await run('rm', [out])
    }
    return [status, stderr]
  }
  const key = (name: string) => (command: string) => `${command} --passphrase-file "${dir.file(name)}"`

  it('a file: its bytes, as QEMU takes them; or without the newline that an editor put there', async () => {
    expect(await dump('bare.qcow2', key('bare.key'))).toEqual([0, ''])
    expect(await dump('bare.qcow2', key('newline.key'))).toEqual([0, ''])
    expect(await dump('newline.qcow2', key('newline.key'))).toEqual([0, ''])
  })

  it('never with a newline more, or without two', async () => {
    writeFileSync(dir.file('two.key'), `${SECRET}\n\n`)
    for (const [image, file] of [
      ['newline', 'bare'],
      ['bare', 'two'],
    ]) {
      const [status, stderr] = await dump(`${image}.qcow2`, key(`${file}.key`))
      expect(status).toBe(1)
      expect(stderr).toMatch(/the passphrase opens no key slot\n$/)
    }
    expect(await dump('newline.qcow2', key('two.key'))).toEqual([0, ''])
  })

  it('standard input, and a pipe that gives it once', async () => {
    expect(await dump('bare.qcow2', command => `echo '${SECRET}' | ${command} --passphrase-file -`)).toEqual([
      0,
      '',
    ])
    expect(await dump('bare.qcow2', command => `${command} --passphrase-file <(echo '${SECRET}')`)).toEqual([
      0,
      '',
    ])
    expect(
      await dump(
        'bare.qcow2',
        command => `(sleep 0.2; printf 'correct '; sleep 0.2; printf horse) | ${command} --passphrase-file -`,
      ),
    ).toEqual([0, ''])
    await run('mkfifo', [dir.file('fifo')])
    const writer = run('sh', ['-c', `printf '${SECRET}' > '${dir.file('fifo')}'`])
    expect(await dump('bare.qcow2', key('fifo'))).toEqual([0, ''])
    await writer
  })

  const codeOf = async (...more: string[]) => {
    const { status, error } = await tidemarkError([
      'dump',
      dir.file('bare.qcow2'),
      '-o',
      dir.file('x'),
      ...more,
    ])
    expect(existsSync(dir.file('x'))).toBe(false)
    return [status, error.code, error.message] as const
  }

  it('none, a wrong one, one that cannot be read', async () => {
    expect(await codeOf()).toEqual([
      1,
      'passphrase-missing',
      expect.stringContaining('give --passphrase-file FILE'),
    ])
    writeFileSync(dir.file('wrong.key'), 'wrong')
    expect(await codeOf('--passphrase-file', dir.file('wrong.key'))).toEqual([
      1,
      'passphrase-wrong',
      expect.stringContaining('opens no key slot'),
    ])
    writeFileSync(dir.file('empty.key'), '')
    const unreadable: readonly (readonly [string, string])[] = [
      [dir.file('none.key'), 'ENOENT'],
      [dir.file('empty.key'), 'it is empty'],
      [dir.path, 'EISDIR'],
      ['/dev/zero', 'larger than 8388608 bytes'],
      ['-', 'it is empty'],
    ]
    for (const [path, why] of unreadable) {
      const told = await codeOf('--passphrase-file', path)
      expect(told).toEqual([1, 'passphrase-unreadable', expect.stringContaining(why)])
    }
  })

  it('is not asked for where no encrypted data are read', async () => {
    const none = ['--passphrase-file', dir.file('none.key')]
    const args = ['dump', dir.file('bare.qcow2'), '-o', dir.file('part.raw'), '--offset', '512k']
    expect(await tidemark([...args, ...none])).toMatchObject({ status: 0, stderr: '' })
    expect(readFileSync(dir.file('part.raw')).equals(Buffer.alloc(2 ** 20))).toBe(true)
    await qemuImg.create(dir.file('clear.qcow2'), '1M')
    const clear = ['dump', dir.file('clear.qcow2'), '-o', dir.file('clear.raw'), ...none]
    expect(await tidemark(clear)).toMatchObject({ status: 0, stderr: '' })
  })

  const script = programPath('script')
  it.skipIf(script === undefined)(
    `typed at a terminal it is not shown${script === undefined ? ' [skipped: needs script (bsdutils)]' : ''}`,
    async () => {
      const out = dir.file('typed.raw')
      const command = `'${process.execPath}' '${bin}' dump '${dir.file('bare.qcow2')}' -o '${out}' --passphrase-file -`
      // Typed when it is asked for: the terminal itself echoes what comes before.
      const typist = `sleep 2; printf '%s\\r' '${SECRET}'; sleep 2`
      const line = `(${typist}) | script -qec "${command}" /dev/null`
      const { stdout } = await run('bash', ['-c', line], { env: plainEnv })
      expect(stdout).toContain('Passphrase: ')
      expect(stdout).not.toContain('horse')
      expect(readFileSync(out).equals(plain)).toBe(true)
    },
  )
})
