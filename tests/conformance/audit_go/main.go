// Verifies an export of an audit log with other people's code: Go's sumdb (notes, trees, tiles) and the
// cosignatures of transparency-dev. Usage: audit EXPORT, with keys in EXPORT/keys.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	f_note "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type files string

func (f files) Height() int { return 8 }

func (f files) SaveTiles([]tlog.Tile, [][]byte) {}

func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, t := range tiles {
		// sumdb has the height in its paths, tlog-tiles has not.
		path := "tile/" + strings.TrimPrefix(t.Path(), "tile/8/")
		data, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (f files) leaves(size int64) [][]byte {
	var found [][]byte
	for n := int64(0); n*256 < size; n++ {
		tile := tlog.Tile{H: 8, L: 0, N: n, W: int(min(256, size-n*256))}
		path := "tile/entries/" + strings.TrimPrefix(tile.Path(), "tile/8/0/")
		data, err := os.ReadFile(filepath.Join(string(f), path))
		must(err)
		for len(data) > 0 {
			length := int(binary.BigEndian.Uint16(data))
			found = append(found, data[2:2+length])
			data = data[2+length:]
		}
	}
	return found
}

// logKey returns a region's key as it signs under the origin of one of its logs.
func logKey(vkey, origin string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || key[0] != 1 || !strings.HasPrefix(origin, parts[0]+"/") {
		return nil, fmt.Errorf("%s does not sign for %s", vkey, origin)
	}
	id := sha256.Sum256(append([]byte(origin+"\n"), key...))
	return note.NewVerifier(fmt.Sprintf("%s+%08x+%s", origin, binary.BigEndian.Uint32(id[:4]), parts[2]))
}

func opened(raw []byte, vkeys []string) (tlog.Tree, int) {
	origin, _, _ := strings.Cut(string(raw), "\n")
	var known []note.Verifier
	var log note.Verifier
	for _, vkey := range vkeys {
		if v, err := logKey(vkey, origin); err == nil {
			log = v
			known = append(known, v)
		} else if v, err := f_note.NewVerifierForCosignatureV1(vkey); err == nil {
			known = append(known, v)
		}
	}
	found, err := note.Open(raw, note.VerifierList(known...))
	must(err)
	signed, witnesses := false, map[string]bool{}
	for _, s := range found.Sigs {
		if log != nil && s.Name == log.Name() {
			signed = true
		} else {
			witnesses[s.Name] = true
		}
	}
	if !signed {
		must(fmt.Errorf("not signed by its log"))
	}
	lines := strings.Split(found.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	must(err)
	hash, err := tlog.ParseHash(lines[2])
	must(err)
	return tlog.Tree{N: size, Hash: hash}, len(witnesses)
}

func main() {
	folder := files(os.Args[1])
	keys, err := os.ReadFile(filepath.Join(string(folder), "keys"))
	must(err)
	vkeys := strings.Fields(string(keys))
	raw, err := os.ReadFile(filepath.Join(string(folder), "checkpoint"))
	must(err)
	tree, witnesses := opened(raw, vkeys)
	reader := tlog.TileHashReader(tree, folder)
	leaves := folder.leaves(tree.N)
	step := max(1, int64(len(leaves))/200)
	included := 0
	for i := int64(0); i < tree.N; i += step {
		proof, err := tlog.ProveRecord(tree.N, i, reader)
		must(err)
		must(tlog.CheckRecord(proof, tree.N, tree.Hash, i, tlog.RecordHash(leaves[i])))
		included++
	}
	// Every leaf, without the tiles.
	stored := make([]tlog.Hash, 0)
	memory := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(at))
		for n, i := range at {
			found[n] = stored[i]
		}
		return found, nil
	})
	for i, leaf := range leaves {
		hashes, err := tlog.StoredHashes(int64(i), leaf, memory)
		must(err)
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(tree.N, memory)
	must(err)
	if root != tree.Hash {
		must(fmt.Errorf("the leaves do not have the root that was signed"))
	}
	history, err := os.ReadFile(filepath.Join(string(folder), "history.jsonl"))
	must(err)
	consistent := 0
	lines := bufio.NewScanner(bytes.NewReader(history))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var text string
		must(json.Unmarshal(lines.Bytes(), &text))
		older, _ := opened([]byte(text), vkeys)
		proof, err := tlog.ProveTree(tree.N, older.N, reader)
		must(err)
		must(tlog.CheckTree(proof, tree.N, tree.Hash, older.N, older.Hash))
		consistent++
	}
	must(json.NewEncoder(os.Stdout).Encode(map[string]int{
		"size": int(tree.N), "witnesses": witnesses, "included": included, "consistent": consistent,
	}))
}
