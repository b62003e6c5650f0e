// Oracle of the tests: what golang.org/x/mod's tlog and note say about a tree and its notes.
//
// Reads one JSON object from standard input, and prints one.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type question struct {
	// Tree is the directory of a tree; Size is the size of its checkpoint.
	Tree string
	Size int64
	// Key is a verifier key, Note a signed note, PrivateKey a key of the note package.
	Key, Note, PrivateKey, Text string
	// Witness is the verifier key of a witness that must have cosigned the note.
	Witness string
	// Index and Old ask for proofs.
	Index, Old int64
	// Record, Path and Root ask for a check of an inclusion proof.
	Record     []byte
	Path, Tail []tlog.Hash
	Root       tlog.Hash
	OldRoot    tlog.Hash
}

type answer struct {
	Root, OldRoot tlog.Hash
	Inclusion     tlog.RecordProof
	Consistency   tlog.TreeProof
	Text          string
	Verified      bool
	Signed        string
	Problem       string
}

// tiles reads hashes from the files of a tree in the layout of C2SP.
type tiles struct{ directory string }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		// tlog's own path begins with "tile/8/"; C2SP's has no height.
		path := "tile/" + tile.Path()[len("tile/8/"):]
		content, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		found = append(found, content)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// bare reads hashes from tiles without a root to check them against.
func bare(directory string, size int64) tlog.HashReaderFunc {
	return func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			tile := tlog.TileForIndex(8, index)
			for width := 256; ; width-- {
				tile.W = width
				if width == 0 {
					return nil, fmt.Errorf("no tile for %d", index)
				}
				content, err := tiles{directory}.ReadTiles([]tlog.Tile{tile})
				if err != nil {
					continue
				}
				hash, err := tlog.HashFromTile(tile, content[0], index)
				if err != nil {
					return nil, err
				}
				hashes[i] = hash
				break
			}
		}
		return hashes, nil
	}
}

// witness verifies cosignature/v1 (c2sp.org/tlog-cosignature), which the note package does not know.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }

func (w witness) Verify(message, signature []byte) bool {
	if len(signature) != 8+ed25519.SignatureSize {
		return false
	}
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(signature))
	return ed25519.Verify(w.key, append([]byte(head), message...), signature[8:])
}

func newWitness(text string) (note.Verifier, error) {
	parts := strings.SplitN(text, "+", 3)
	if len(parts) != 3 {
		return nil, fmt.Errorf("not a verifier key")
	}
	key, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, fmt.Errorf("not the key of a witness")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	return witness{parts[0], binary.BigEndian.Uint32(sum[:4]), key[1:]}, nil
}

func check(err error, a *answer) bool {
	if err != nil {
		a.Problem = err.Error()
	}
	return err == nil
}

func respond(q question) (a answer) {
	var err error
	if q.PrivateKey != "" {
		signer, err := note.NewSigner(q.PrivateKey)
		if !check(err, &a) {
			return
		}
		signed, err := note.Sign(&note.Note{Text: q.Text}, signer)
		check(err, &a)
		a.Signed = string(signed)
		return
	}
	if q.Note != "" {
		verifier, err := note.NewVerifier(q.Key)
		if !check(err, &a) {
			return
		}
		verifiers := []note.Verifier{verifier}
		if q.Witness != "" {
			cosigner, err := newWitness(q.Witness)
			if !check(err, &a) {
				return
			}
			verifiers = append(verifiers, cosigner)
		}
		opened, err := note.Open([]byte(q.Note), note.VerifierList(verifiers...))
		if !check(err, &a) {
			return
		}
		if len(opened.Sigs) != len(verifiers) {
			a.Problem = "a signature is missing"
		}
		a.Text = opened.Text
	}
	if q.Tree == "" {
		return
	}
	if a.Root, err = tlog.TreeHash(q.Size, bare(q.Tree, q.Size)); !check(err, &a) {
		return
	}
	// Hashes that are read from here on are checked against the root.
	reader := tlog.TileHashReader(tlog.Tree{N: q.Size, Hash: a.Root}, tiles{q.Tree})
	if a.Inclusion, err = tlog.ProveRecord(q.Size, q.Index, reader); !check(err, &a) {
		return
	}
	if a.Consistency, err = tlog.ProveTree(q.Size, q.Old, reader); !check(err, &a) {
		return
	}
	a.OldRoot, err = tlog.TreeHash(q.Old, reader)
	if !check(err, &a) {
		return
	}
	if q.Record != nil {
		leaf := tlog.RecordHash(q.Record)
		err = tlog.CheckRecord(q.Path, q.Size, q.Root, q.Index, leaf)
		if check(err, &a) {
			err = tlog.CheckTree(q.Tail, q.Size, q.Root, q.Old, q.OldRoot)
			a.Verified = check(err, &a)
		}
	}
	return
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	answers := make([]answer, len(questions))
	for i, q := range questions {
		answers[i] = respond(q)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
