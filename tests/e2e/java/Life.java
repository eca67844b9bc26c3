import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Callable;
import jdk.crac.Context;
import jdk.crac.Resource;

/** What the programs that check themselves have in common: they wait for a word, and say what differs. */
final class Life {
    private static final List<String> DIFFERENCES = new ArrayList<>();
    /** The contract holds resources weakly. */
    private static final List<Resource> RESOURCES = new ArrayList<>();

    /** What the test said last, and when. */
    private static String word;
    private static FileTime heardAt;

    private Life() {}

    interface Step {
        void run() throws Exception;
    }

    /** Waits until the test says {@code go}, in whatever life that is; returns what it said. */
    static String hear() throws Exception {
        Path go = Path.of("state/go");
        while (true) {
            try {
                // Who waits for another word must not have the file open when an image is taken.
                FileTime said = Files.getLastModifiedTime(go);
                if (!said.equals(heardAt)) {
                    word = Files.readString(go);
                    heardAt = said;
                }
                return word;
            } catch (NoSuchFileException e) {
                // Nothing is said yet, or the test puts the last word by at this moment.
                Thread.sleep(10);
            }
        }
    }

    /** Says that everything is set up. */
    static void ready() {
        System.out.println("ready");
    }

    static synchronized void check(boolean holds, String what) {
        if (!holds) {
            DIFFERENCES.add(what);
        }
    }

    static void same(String what, Object expected, Object found) {
        check(Objects.equals(expected, found), what + ": " + expected + " expected, " + found + " found");
    }

    /** Whether something throws; what it throws instead of that is a difference. */
    static void throwing(String what, Class<? extends Throwable> expected, Callable<?> body) {
        try {
            check(false, what + ": " + body.call() + " instead of " + expected);
        } catch (Throwable e) {
            check(expected.isInstance(e), what + ": " + e + " instead of " + expected);
        }
    }

    /** A step whose exception is a difference. */
    static void step(String what, Step step) {
        try {
            step.run();
        } catch (Throwable e) {
            java.io.StringWriter text = new java.io.StringWriter();
            e.printStackTrace(new java.io.PrintWriter(text));
            check(false, what + ": " + text);
        }
    }

    /** Waits for a fact, for a generous time. */
    static void eventually(String what, Callable<Boolean> fact) throws Exception {
        for (int i = 0; i < 3000; i++) {
            if (fact.call()) {
                return;
            }
            Thread.sleep(10);
        }
        check(false, what + ": not within 30 s");
    }

    static void register(Step before, Step after) {
        Resource resource = new Resource() {
            @Override
            public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
                before.run();
            }

            @Override
            public void afterRestore(Context<? extends Resource> context) throws Exception {
                after.run();
            }
        };
        RESOURCES.add(resource);
        jdk.crac.Core.getGlobalContext().register(resource);
    }

    /** Says what was found, and ends. */
    static synchronized void verdict() {
        DIFFERENCES.forEach(difference -> System.out.println("differs: " + difference));
        System.out.println(DIFFERENCES.isEmpty() ? "verdict: same" : "verdict: different");
        System.out.flush();
        System.exit(DIFFERENCES.isEmpty() ? 0 : 1);
    }
}
