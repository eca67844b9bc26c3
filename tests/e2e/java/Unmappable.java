import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/** Keeps a file open whose name the locale has no letters for: it was found by a look into the directory. */
public final class Unmappable {
    private static volatile boolean goesOn;

    private Unmappable() {}

    public static void main(String[] args) throws Exception {
        List<Path> found;
        try (Stream<Path> all = Files.list(Path.of(""))) {
            found = all.filter(path -> path.toString().startsWith("odd-")).toList();
        }
        InputStream input = Files.newInputStream(found.get(0));
        Life.same("before", (int) 'a', input.read());
        Life.register(() -> { }, () -> goesOn = true);
        Life.ready();
        Life.hear();
        Life.eventually("after-hooks", () -> goesOn);
        Life.step("file", () -> Life.same("after", (int) 'b', input.read()));
        Life.verdict();
    }
}
