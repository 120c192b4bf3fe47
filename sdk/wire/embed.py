"""embed.py INPUT OUTPUT.c NAME: the bytes of a file as a C array `NAME` and its length `NAME_length`."""
import sys

data = open(sys.argv[1], "rb").read()
name = sys.argv[3]
with open(sys.argv[2], "w", encoding="ascii") as out:
    out.write("#include <stddef.h>\n")
    out.write(f"extern const unsigned char {name}[];\nextern const size_t {name}_length;\n")
    out.write(f"const size_t {name}_length = {len(data)};\nconst unsigned char {name}[] = {{\n")
    for at in range(0, len(data), 24):
        out.write("".join(f"{byte}," for byte in data[at:at + 24]) + "\n")
    out.write("};\n")
