# Prints a makefile's targets, one in a line, from the comments that begin with two hashes, under the headings that
# begin with two hashes and an at sign.

BEGIN { FS = ":.*## " }

/^##@ / { printf "\n%s\n", substr($0, 5); next }

/^[a-z][a-z-]*:.*## / { printf "  make %-18s %s\n", $1, $2 }
