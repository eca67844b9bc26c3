import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicReference;
import jdk.crac.CheckpointException;
import jdk.crac.Context;
import jdk.crac.Core;
import jdk.crac.Resource;
import jdk.crac.RestoreException;
import jdk.crac.management.CRaCMXBean;

/**
 * The corners of the contract, by checkpoints that the program asks for itself. To be run with {@code
 * -Djdk.crac.globalContext.impl=BlockingOrderedContext}, and an engine that leaves the original
 * running: it and every copy of it say the same.
 */
public final class Contract {
    private static final List<String> TOLD = new ArrayList<>();
    /** The contract holds resources weakly. */
    private static final List<Resource> KEPT = new ArrayList<>();
    /** Resources of an earlier part may still be there, since nobody can take them out: they are silent. */
    private static volatile int part;

    /** What a resource does when it is told. */
    interface Act {
        void run(Context<? extends Resource> context) throws Exception;
    }

    record Told(String name, int of, Act before, Act after) implements Resource {
        @Override
        public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
            if (of == part) {
                TOLD.add("before " + name);
                before.run(context);
            }
        }

        @Override
        public void afterRestore(Context<? extends Resource> context) throws Exception {
            if (of == part) {
                TOLD.add("after " + name);
                after.run(context);
            }
        }

        @Override
        public String toString() {
            return name;
        }
    }

    /** A context of the application's own, as CRaC's documentation has one. */
    static final class Nested extends Context<Resource> {
        private final List<Resource> resources = new ArrayList<>();

        @Override
        public void register(Resource resource) {
            resources.add(resource);
        }

        @Override
        public void beforeCheckpoint(Context<? extends Resource> context) throws CheckpointException {
            CheckpointException failed = new CheckpointException();
            for (int i = resources.size() - 1; i >= 0; i--) {
                try {
                    resources.get(i).beforeCheckpoint(this);
                } catch (Exception e) {
                    failed.addSuppressed(e);
                }
            }
            if (failed.getSuppressed().length > 0) {
                throw failed;
            }
        }

        @Override
        public void afterRestore(Context<? extends Resource> context) throws RestoreException {
            RestoreException failed = new RestoreException();
            for (Resource resource : resources) {
                try {
                    resource.afterRestore(this);
                } catch (Exception e) {
                    failed.addSuppressed(e);
                }
            }
            if (failed.getSuppressed().length > 0) {
                throw failed;
            }
        }

        @Override
        public String toString() {
            return "nested";
        }
    }

    private static void nothing(Context<? extends Resource> context) { }

    public static void main(String[] args) throws Exception {
        Life.same("both ways to the context", Core.getGlobalContext(), Context.getGlobalContext());
        failures();
        part++;
        TOLD.clear();
        registrations();
        part++;
        cycle();
    }

    /** Everybody is told, and everything is reported, flat, whatever some do. */
    private static void failures() throws Exception {
        Context<Resource> global = Core.getGlobalContext();
        AtomicReference<Object> outer = new AtomicReference<>();
        AtomicReference<Object> inner = new AtomicReference<>();
        register(global, "first", context -> outer.set(context), Contract::nothing);
        Nested nested = new Nested();
        global.register(nested);
        KEPT.add(nested);
        register(nested, "one", context -> {
            inner.set(context);
            throw new IllegalStateException("one before");
        }, context -> {
            throw new IllegalStateException("one after");
        });
        register(nested, "two", context -> {
            throw new java.io.IOException("two before");
        }, Contract::nothing);
        register(global, "interrupted", context -> {
            throw new InterruptedException("not now");
        }, Contract::nothing);
        register(global, "erring", context -> {
            throw new AssertionError("an error");
        }, context -> {
            throw new java.io.IOException("afterwards");
        });
        try {
            Core.checkpointRestore();
            Life.check(false, "no exception");
        } catch (CheckpointException e) {
            Life.check(Thread.interrupted(), "the interrupt is lost");
            Life.same("message", null, e.getMessage());
            Life.same("cause", null, e.getCause());
            Life.same("reasons", List.of(
                    "java.lang.AssertionError: an error",
                    "java.lang.InterruptedException: not now",
                    "java.io.IOException: two before",
                    "java.lang.IllegalStateException: one before",
                    "java.lang.IllegalStateException: one after",
                    "java.io.IOException: afterwards"), texts(e));
        }
        Life.same("context of a resource", global, outer.get());
        Life.same("context of a nested one", nested, inner.get());
        Life.same("order", List.of(
                "before erring", "before interrupted", "before two", "before one", "before first",
                "after first", "after one", "after two", "after interrupted", "after erring"), TOLD);
        // The same by the bean.
        try {
            CRaCMXBean.getCRaCMXBean().checkpointRestore();
            Life.check(false, "no exception by the bean");
        } catch (CheckpointException e) {
            Thread.interrupted();
            Life.same("reasons by the bean", 6, e.getSuppressed().length);
        }
    }

    /** In a blocking context, which CRaC JDKs of 17 and 21 have by default. */
    private static void registrations() throws Exception {
        Context<Resource> global = Core.getGlobalContext();
        CountDownLatch telling = new CountDownLatch(1);
        CountDownLatch registered = new CountDownLatch(1);
        AtomicReference<Throwable> thrown = new AtomicReference<>();
        AtomicReference<Throwable> disturbed = new AtomicReference<>();
        Thread waiting = new Thread(() -> {
            await(telling);
            try {
                register(global, "disturbed", Contract::nothing, Contract::nothing);
            } catch (Throwable e) {
                disturbed.set(e);
            }
        });
        Thread patient = new Thread(() -> {
            await(telling);
            register(global, "patient", Contract::nothing, Contract::nothing);
            registered.countDown();
        });
        Thread interrupted = new Thread(() -> {
            await(telling);
            Thread.currentThread().interrupt();
            try {
                register(global, "hasty", Contract::nothing, Contract::nothing);
            } catch (Throwable e) {
                thrown.set(e);
            }
        });
        patient.start();
        interrupted.start();
        waiting.start();
        register(global, "teller", context -> {
            telling.countDown();
            interrupted.join(30_000);
            Life.eventually("patience", () -> patient.getState() == Thread.State.WAITING);
            Life.same("registered meanwhile", 1L, registered.getCount());
            Life.eventually("wait", () -> waiting.getState() == Thread.State.WAITING);
            waiting.interrupt();
            waiting.join(30_000);
            throw new IllegalStateException("enough");
        }, context -> Life.check(registered.await(30, java.util.concurrent.TimeUnit.SECONDS), "still blocked"));
        try {
            Core.checkpointRestore();
            Life.check(false, "no exception");
        } catch (CheckpointException e) {
            Life.same("reasons", List.of("java.lang.IllegalStateException: enough"), texts(e));
        }
        String text = String.valueOf(thrown.get());
        Life.check(text.startsWith("java.lang.RuntimeException: Interrupted thread tried to block in registration of hasty in "),
                text);
        text = String.valueOf(disturbed.get());
        Life.check(text.startsWith("java.lang.RuntimeException: Interrupted while trying to register disturbed"), text);
        Life.same("told", List.of("before teller", "after teller"), TOLD);
    }

    /** The original goes on as a copy does, but knows that it is none. */
    private static void cycle() {
        String life = "";
        try {
            for (int i = 0; i < 2; i++) {
                Core.checkpointRestore();
            }
            Life.ready();
            life = Life.hear();
            long time = CRaCMXBean.getCRaCMXBean().getRestoreTime();
            Life.same("is a copy", life.contains("copy"), time != -1);
            Life.same("uptime since", life.contains("copy"), CRaCMXBean.getCRaCMXBean().getUptimeSinceRestore() >= 0);
        } catch (Throwable e) {
            Life.check(false, e + " " + Arrays.toString(e.getSuppressed()));
        }
        Life.verdict();
    }

    private static void register(Context<Resource> context, String name, Act before, Act after) {
        Resource resource = new Told(name, part, before, after);
        KEPT.add(resource);
        context.register(resource);
    }

    private static List<String> texts(Throwable e) {
        return Arrays.stream(e.getSuppressed()).map(Throwable::toString).toList();
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
